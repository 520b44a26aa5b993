package formats

import (
	"bytes"
	"os"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

// Every way to open a disk that can be written keeps the contract of block.Disk.
func TestDisksConform(t *testing.T) {
	for name, c := range map[string]struct {
		create []string
		o      Options
	}{
		"raw":              {[]string{"-f", "raw", "disk", "1M"}, Options{Format: "raw"}},
		"raw, probed":      {[]string{"-f", "raw", "disk", "1M"}, Options{}},
		"raw, O_DIRECT":    {[]string{"-f", "raw", "disk", "1M"}, Options{Format: "raw", Cache: "directsync"}},
		"raw, a part":      {[]string{"-f", "raw", "disk", "4M"}, Options{Format: "raw", Values: map[string]string{"offset": "1536", "size": "1M"}}},
		"qcow2":            {[]string{"-f", "qcow2", "disk", "1M"}, Options{Format: "qcow2"}},
		"qcow2, O_DIRECT":  {[]string{"-f", "qcow2", "disk", "1M"}, Options{Format: "qcow2", Cache: "none"}},
		"qcow2, data file": {[]string{"-f", "qcow2", "-o", "data_file=data", "disk", "1M"}, Options{Format: "qcow2", Cache: "unsafe"}},
		"qcow2, backing":   {[]string{"-f", "qcow2", "-b", "base", "-F", "raw", "disk", "1M"}, Options{Format: "qcow2", Stated: true, NoShare: true}},
	} {
		t.Run(name, func(t *testing.T) {
			inDir(t)
			if err := os.WriteFile("base", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate("base", 700<<10); err != nil {
				t.Fatal(err)
			}
			blocktest.Run(t, func(t *testing.T) block.Disk {
				os.Remove("disk")
				os.Remove("data")
				mustQEMU(t, append([]string{"qemu-img", "create", "-q"}, c.create...)...)
				o := c.o
				o.Filename = "disk"
				n, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				return n.Disk(pool.Options{Discard: true})
			})
			if c.o.Format == "qcow2" {
				mustQEMU(t, "qemu-img", "check", "-q", "-f", "qcow2", "disk")
			}
		})
	}
}

func TestAReadOnlyNodesDiskIsReadOnly(t *testing.T) {
	inDir(t)
	images(t)
	n, err := Open(Options{Filename: "a.raw", ReadOnly: true, Cache: "writethrough"})
	if err != nil {
		t.Fatal(err)
	}
	d := n.Disk(pool.Options{})
	if err := blocktest.Do(t, d, block.Request{Op: block.OpWriteZeroes, Len: 512}); err == nil {
		t.Error("it was written")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustQEMU(t, "qemu-io", "-f", "raw", "-c", "write 0 512", "a.raw")
}

func TestSizeIsRoundedUpToSectors(t *testing.T) {
	inDir(t)
	if err := os.WriteFile("odd", bytes.Repeat([]byte{7}, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := Open(Options{Filename: "odd", Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	d := n.Disk(pool.Options{})
	if d.Size() != 1024 {
		t.Fatalf("Size() = %d, want 1024", d.Size())
	}
	p := bytes.Repeat([]byte{9}, 1024)
	if _, err := block.ReadAt(d, p, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, append(bytes.Repeat([]byte{7}, 1000), make([]byte, 24)...)) {
		t.Error("the tail past the file's end does not read as zeros")
	}
	if _, err := block.WriteAt(d, bytes.Repeat([]byte{5}, 512), 512); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("odd"); err != nil || len(b) != 1024 || b[1023] != 5 {
		t.Errorf("after writing the tail the file has %d bytes (%v)", len(b), err)
	}
}
