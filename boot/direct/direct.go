// Package direct boots any kernel image that can be booted without firmware.
package direct

import (
	"berth/boot"
	"berth/boot/linux"
	"berth/boot/multiboot"
	"berth/boot/pvh"
	"berth/guestmem"
)

// Load recognises p.Kernel, puts it and all that it needs into mem, which must
// be fresh (zeroed) RAM, and returns how the boot vCPU starts. Errors are one
// line for the user, who knows which kernel is meant; mem is then in no
// particular state.
func Load(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	kind, err := boot.Detect(p.Kernel)
	if err != nil {
		return nil, err
	}
	load := map[boot.Kind]func(*guestmem.Memory, boot.Params) (*boot.Entry, error){
		boot.KindBzImage:   linux.LoadBzImage,
		boot.KindLinuxELF:  linux.LoadELF,
		boot.KindPVH:       pvh.Load,
		boot.KindMultiboot: multiboot.Load,
	}[kind]
	return load(mem, p)
}
