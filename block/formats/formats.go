// Package formats knows the disk formats there are, and opens images with all that they stand on.
package formats

import (
	"bytes"

	"berth/block"
	"berth/block/qcow2"
	"berth/block/vdi"
	"berth/block/vhdx"
	"berth/block/vmdk"
	"berth/block/vpc"
)

// ProbeSize is how much of an image decides its format, in bytes: QEMU's
// BLOCK_PROBE_BUF_SIZE (include/block/block_int-common.h). A guest that may not
// write more than that as it likes cannot change what its disk is taken for.
const ProbeSize = 512

// All lists the formats, in the order in which they are probed.
func All() []block.Format {
	return []block.Format{rawFormat(), vmdk.Format(), vdi.Format(), vhdx.Format(), vpc.Format(), qcow2.Format()}
}

// Find returns the format of that name.
func Find(name string) (block.Format, bool) {
	for _, f := range All() {
		if f.Name == name {
			return f, true
		}
	}
	return block.Format{}, false
}

// foreign are formats that QEMU knows by an image's first bytes and berth does
// not open. They are never taken for raw: that would show the guest another
// disk than its own, and let it make its raw disk into one of them.
var foreign = [...]struct {
	name  string
	magic string
}{
	{"bochs", "Bochs Virtual HD Image\x00"},
	{"cloop", "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"},
	{"luks", "LUKS\xba\xbe\x00\x01"},
	{"parallels", "WithoutFreeSpace\x02\x00\x00\x00"},
	{"parallels", "WithouFreSpacExt\x02\x00\x00\x00"},
	{"qcow", "QFI\xfb\x00\x00\x00\x01"},
	{"qed", "QED\x00"},
}

// Probe tells the format of an image that begins with head: what is surest of
// it, "raw" if nothing is. The name may be that of a format of QEMU's that is
// not in All.
func Probe(head []byte) string {
	head = head[:min(len(head), ProbeSize)]
	best, name := 0, "raw"
	for _, f := range All() {
		if f.Probe == nil {
			continue
		}
		if score := f.Probe(head); score > best {
			best, name = score, f.Name
		}
	}
	for _, f := range foreign {
		if best <= 1 && bytes.HasPrefix(head, []byte(f.magic)) {
			return f.name
		}
	}
	return name
}
