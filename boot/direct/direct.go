// Package direct boots any kernel image that can be booted without firmware.
package direct

import (
	"fmt"

	"berth/boot"
	"berth/boot/linux"
	"berth/boot/pvh"
	"berth/guestmem"
)

// Load recognises p.Kernel, puts it and all that it needs into mem, which must
// be fresh (zeroed) RAM, and returns how the boot vCPU starts. Errors are one
// line, meant for the user; mem is then in no particular state.
func Load(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	kind, err := boot.Detect(p.Kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	load := map[boot.Kind]func(*guestmem.Memory, boot.Params) (*boot.Entry, error){
		boot.KindBzImage:  linux.LoadBzImage,
		boot.KindLinuxELF: linux.LoadELF,
		boot.KindPVH:      pvh.Load,
	}[kind]
	e, err := load(mem, p)
	if err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	return e, nil
}
