package linux

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"berth/boot"
	"berth/boot/boottest"
	"berth/guestmem"
	"berth/tests/guest"
	"berth/x86"
)

const mib = 1 << 20

// headers is where elf64 puts the code.
const headers = 0x80

// elf64 is a kernel of one segment: code at paddr, then bss.
func elf64(paddr uint64, code []byte, bss uint64) []byte {
	b := make([]byte, headers, headers+len(code))
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[24:], paddr)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1)
	le.PutUint64(b[72:], headers)
	le.PutUint64(b[80:], 0xffffffff80000000+paddr)
	le.PutUint64(b[88:], paddr)
	le.PutUint64(b[96:], uint64(len(code)))
	le.PutUint64(b[104:], uint64(len(code))+bss)
	return append(b, code...)
}

// bzImage is a small kernel image around payload, with a header that change may spoil.
func bzImage(payload []byte, change func(h []byte)) []byte {
	const setup, head = 2 * sector, 0x300 // head: the decompressor's code
	b := make([]byte, setup+head)
	le := binary.LittleEndian
	b[offSetupSects] = 1
	le.PutUint16(b[offBootFlag:], bootFlag)
	b[offHeaderLen] = headerEnd - offMagic
	copy(b[offMagic:], magic)
	le.PutUint16(b[offVersion:], 0x20f)
	le.PutUint16(b[offKernelName:], 0x100)
	copy(b[0x300:], "9.9.9-test (someone@somewhere)\x00")
	b[offLoadflags] = loadedHigh
	le.PutUint32(b[offInitrdMax:], 0x7fffffff)
	le.PutUint16(b[offXloadflags:], xlfKernel64|xlfAbove4G)
	le.PutUint32(b[offCmdlineSize:], 255)
	le.PutUint32(b[offPayload:], head)
	le.PutUint32(b[offPayloadLen:], uint32(len(payload)))
	le.PutUint64(b[offPrefAddress:], 2*mib)
	le.PutUint32(b[offInitSize:], 3*mib)
	b = append(b, payload...)
	for len(b)%16 != 0 {
		b = append(b, 0)
	}
	le.PutUint32(b[offSyssize:], uint32(len(b)-setup)/16)
	if change != nil {
		change(b)
	}
	return b
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

var code = bytes.Repeat([]byte{0x90, 0xf4}, 3000)

func TestBzImageUnpackedOnTheHost(t *testing.T) {
	mem := boottest.RAM(t, 8*mib)
	initrd := append([]byte("BZh9"), make([]byte, 5002)...)
	e, err := LoadBzImage(mem, boot.Params{
		Kernel:  boottest.Section(bzImage(gzipped(elf64(2*mib, code, 4096)), nil)),
		Initrd:  boottest.Section(initrd),
		Cmdline: "quiet", RSDP: boot.ACPIBase,
		Reserved: []boot.Range{{Addr: 0xb0000000, Size: 256 * mib}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Protocol != "linux64" || e.Image != "bzImage 9.9.9-test, gzip unpacked on the host" {
		t.Errorf("%s: %s", e.Protocol, e.Image)
	}
	if e.State.RIP != 2*mib || e.State.GPR[x86.RSI] != boot.BootParams {
		t.Errorf("RIP 0x%x, RSI 0x%x", e.State.RIP, e.State.GPR[x86.RSI])
	}
	got := make([]byte, len(code))
	if mem.Read(2*mib, got); !bytes.Equal(got, code) {
		t.Error("the segment is not where it belongs")
	}
	checkZeroPage(t, mem, initrd)
}

// checkZeroPage compares boot_params with what TestBzImageUnpackedOnTheHost asked for.
func checkZeroPage(t *testing.T, mem *guestmem.Memory, initrd []byte) {
	t.Helper()
	zp, err := mem.Slice(boot.BootParams, 4096)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for name, c := range map[string][2]uint64{
		"boot_flag":        {uint64(le.Uint16(zp[0x1fe:])), 0xaa55},
		"version":          {uint64(le.Uint16(zp[0x206:])), 0x20f},
		"type_of_loader":   {uint64(zp[0x210]), 0xff},
		"cmd_line_ptr":     {uint64(le.Uint32(zp[0x228:])), boot.CmdlineAddr},
		"ramdisk_image":    {uint64(le.Uint32(zp[0x218:])), 8*mib - 8192},
		"ramdisk_size":     {uint64(le.Uint32(zp[0x21c:])), uint64(len(initrd))},
		"acpi_rsdp_addr":   {le.Uint64(zp[0x70:]), boot.ACPIBase},
		"e820_entries":     {uint64(zp[0x1e8]), 5},
		"last e820 addr":   {le.Uint64(zp[0x2d0+4*20:]), 0xb0000000},
		"last e820 type":   {uint64(le.Uint32(zp[0x2d0+4*20+16:])), 2},
		"bytes after HdrS": {le.Uint64(zp[0x268:]), 0},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is 0x%x, want 0x%x", name, c[0], c[1])
		}
	}
	got := make([]byte, len(initrd))
	if mem.Read(8*mib-8192, got); !bytes.Equal(got, initrd) {
		t.Error("the initrd is not where boot_params says")
	}
}

func TestBzImageThatUnpacksItself(t *testing.T) {
	for name, p := range map[string]boot.Params{
		"asked for":          {Unpack: boot.UnpackGuest, Kernel: boottest.Section(bzImage(gzipped(elf64(2*mib, code, 0)), nil))},
		"unsupported format": {Unpack: boot.UnpackAuto, Kernel: boottest.Section(bzImage([]byte("\x89LZO something"), nil))},
	} {
		mem := boottest.RAM(t, 8*mib)
		e, err := LoadBzImage(mem, p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.State.RIP != 2*mib+0x200 || e.Placed[0].Range != (boot.Range{Addr: 2 * mib, Size: 3 * mib}) {
			t.Errorf("%s: RIP 0x%x, %v", name, e.State.RIP, e.Placed[0])
		}
		image := make([]byte, 20)
		mem.Read(2*mib+0x300, image) // the payload, inside the protected-mode part
		want := make([]byte, 20)
		p.Kernel.ReadAt(want, 2*sector+0x300)
		if !bytes.Equal(image, want) {
			t.Errorf("%s: the protected-mode part is not at pref_address", name)
		}
	}
	_, err := LoadBzImage(boottest.RAM(t, 8*mib), boot.Params{Unpack: boot.UnpackHost, Kernel: boottest.Section(bzImage([]byte("\x89LZO something"), nil))})
	if err == nil || err.Error() != "kernel payload: lzo: compression not supported on the host" {
		t.Errorf("host asked for: %v", err)
	}
}

// Each refusal is one line that says what is wrong.
func TestRefusals(t *testing.T) {
	le := binary.LittleEndian
	good := gzipped(elf64(2*mib, code, 4096))
	img := func(change func([]byte)) *io.SectionReader { return boottest.Section(bzImage(good, change)) }
	whole := bzImage(good, nil)
	for _, c := range []struct {
		want string
		p    boot.Params
	}{
		{"bzImage is truncated: 400 bytes are less than its header", boot.Params{Kernel: boottest.Section(whole[:400])}},
		{"bzImage is truncated: 1500 of", boot.Params{Kernel: boottest.Section(whole[:1500])}},
		{"boot protocol 2.06; 2.12 (Linux 3.8) is the oldest", boot.Params{Kernel: img(func(h []byte) { h[offVersion] = 6 })}},
		{"zImage, not bzImage", boot.Params{Kernel: img(func(h []byte) { h[offLoadflags] = 0 })}},
		{"32-bit kernel", boot.Params{Kernel: img(func(h []byte) { h[offXloadflags] = 0 })}},
		{"header ends at 0x301", boot.Params{Kernel: img(func(h []byte) { h[offHeaderLen] = 0xff })}},
		{"past the end of the kernel", boot.Params{Kernel: img(func(h []byte) { le.PutUint32(h[offPayloadLen:], 1<<31) })}},
		{"kernel payload: gzip: corrupt", boot.Params{Kernel: img(func(h []byte) { h[0x700+len(good)-8] ^= 1 })}},
		{"kernel payload: not an ELF file", boot.Params{Kernel: boottest.Section(bzImage(gzipped([]byte(strings.Repeat("text ", 100))), nil))}},
		{"kernel needs 0x10000000-0x10002770, but the guest has 8 MiB of memory", boot.Params{Kernel: boottest.Section(bzImage(gzipped(elf64(256*mib, code, 4096)), nil))}},
		{"gzip: unpacks to 9 MiB, more than the guest's 8 MiB", boot.Params{Kernel: boottest.Section(bzImage(gzipped(elf64(2*mib, make([]byte, 9*mib), 0)), nil))}},
		{"kernel and room to unpack it needs 0x200000-0x10200000, but the guest has 8 MiB", boot.Params{Unpack: boot.UnpackGuest, Kernel: img(func(h []byte) { le.PutUint32(h[offInitSize:], 256*mib) })}},
		{"command line of 256 bytes is longer than the kernel's limit of 255", boot.Params{Kernel: img(nil), Cmdline: strings.Repeat("x", 256)}},
		{"initrd is neither", boot.Params{Kernel: img(nil), Initrd: boottest.Section([]byte("random bytes"))}},
		{"initrd of 9 MiB does not fit beside the kernel: the guest has 8 MiB of memory", boot.Params{Kernel: img(nil), Initrd: boottest.Section(make([]byte, 9*mib))}},
	} {
		_, err := LoadBzImage(boottest.RAM(t, 8*mib), c.p)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// initrd_addr_max holds unless the kernel says that its initrd may lie above
// 4 GiB, and so anywhere.
func TestInitrdAddrMax(t *testing.T) {
	initrd := append([]byte("BZh9"), make([]byte, mib)...)
	for _, above4G := range []bool{false, true} {
		image := bzImage(gzipped(elf64(2*mib, code, 2*mib)), func(h []byte) {
			binary.LittleEndian.PutUint32(h[offInitrdMax:], 4*mib-1)
			if !above4G {
				h[offXloadflags] = xlfKernel64
			}
		})
		e, err := LoadBzImage(boottest.RAM(t, 8*mib), boot.Params{Kernel: boottest.Section(image), Initrd: boottest.Section(initrd)})
		if (err == nil) != above4G {
			t.Errorf("may lie above 4 GiB %v: %v", above4G, err)
		}
		if err == nil && (e.Placed[2].What != "initrd" || e.Placed[2].Addr != 7*mib-4096) {
			t.Errorf("%v", e.Placed)
		}
	}
}

// debian returns Debian's kernel and initrd.
func debian(t *testing.T) (kernel, initrd *io.SectionReader) {
	t.Helper()
	files := guest.Need(t)
	open := func(what, path string) *io.SectionReader {
		f, err := boot.OpenFile(what, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f.SectionReader
	}
	return open("kernel", files.Kernel), open("initrd", files.Initrd)
}

// Debian's kernel unpacked on the host ends at 62 MiB and its initrd then lies
// below it in the smallest guest; the same from there to 64 GiB of sparse RAM.
func TestDebianKernelFrom64MiBTo64GiB(t *testing.T) {
	kernel, initrd := debian(t)
	for _, size := range []uint64{64 * mib, 65 * mib, 80 * mib, 512 * mib, 2 << 30, 64 << 30} {
		mem := boottest.RAM(t, size)
		e, err := LoadBzImage(mem, boot.Params{Kernel: kernel, Initrd: initrd, Cmdline: "console=ttyS0"})
		if err != nil {
			t.Errorf("%d MiB: %v", size/mib, err)
			continue
		}
		if err := e.State.CheckVMXEntry(); err != nil {
			t.Error(err)
		}
		checkDisjoint(t, mem, e.Placed)
		mem.Close()
	}
}

func checkDisjoint(t *testing.T, mem *guestmem.Memory, placed []boot.Placement) {
	t.Helper()
	for i, p := range placed {
		if _, err := mem.Slice(p.Addr, p.Size); err != nil {
			t.Errorf("%v: %v", p, err)
		}
		for _, q := range placed[:i] {
			if p.Addr < q.End() && q.Addr < p.End() {
				t.Errorf("%v overlaps %v", p, q)
			}
		}
	}
}

func TestDebianKernelThatUnpacksItself(t *testing.T) {
	kernel, initrd := debian(t)
	p := boot.Params{Kernel: kernel, Initrd: initrd, Unpack: boot.UnpackGuest}
	e, err := LoadBzImage(boottest.RAM(t, 512*mib), p)
	if err != nil || e.State.RIP&0xfff != 0x200 {
		t.Errorf("%v", err)
	}
	if _, err := LoadBzImage(boottest.RAM(t, 64*mib), p); err == nil || !strings.Contains(err.Error(), "but the guest has 64 MiB of memory") {
		t.Errorf("64 MiB: %v", err)
	}
	p.Unpack = boot.UnpackGuestFirst
	for size, rip := range map[uint64]uint64{512 * mib: e.State.RIP, 64 * mib: e.State.RIP - 0x200} {
		if e, err := LoadBzImage(boottest.RAM(t, size), p); err != nil || e.State.RIP != rip {
			t.Errorf("guest first, %d MiB: %v", size/mib, err)
		}
	}
	p.Unpack = boot.UnpackAuto
	if _, err := LoadBzImage(boottest.RAM(t, 32*mib), p); err == nil || !strings.Contains(err.Error(), "more than the guest's 32 MiB of memory") {
		t.Errorf("32 MiB: %v", err)
	}
}

func TestVmlinux(t *testing.T) {
	mem := boottest.RAM(t, 8*mib)
	kernel := elf64(2*mib, code, 4096)
	e, err := LoadELF(mem, boot.Params{Kernel: boottest.Section(kernel), Cmdline: "quiet"})
	if err != nil || e.State.RIP != 2*mib || e.Image != "ELF vmlinux" {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := LoadELF(boottest.RAM(t, 8*mib), boot.Params{Kernel: boottest.Section(kernel[:0x180])}); err == nil || !strings.Contains(err.Error(), "kernel is truncated: a segment ends at byte 6128 of 384") {
		t.Errorf("truncated: %v", err)
	}
	// An entry point given as a virtual address is translated.
	binary.LittleEndian.PutUint64(kernel[24:], 0xffffffff80000000+2*mib+16)
	e, err = LoadELF(boottest.RAM(t, 8*mib), boot.Params{Kernel: boottest.Section(kernel)})
	if err != nil || e.State.RIP != 2*mib+16 {
		t.Errorf("virtual entry: %v", err)
	}
}

// FuzzBzImage: a hostile image is refused or loaded inside guest memory.
func FuzzBzImage(f *testing.F) {
	f.Fuzz(func(t *testing.T, image []byte, onGuest bool) {
		mem := boottest.RAM(t, 8*mib)
		defer mem.Close()
		p := boot.Params{Kernel: boottest.Section(image), Cmdline: "quiet"}
		if onGuest {
			p.Unpack = boot.UnpackGuest
		}
		e, err := LoadBzImage(mem, p)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			return
		}
		if err := e.State.CheckVMXEntry(); err != nil {
			t.Error(err)
		}
		checkDisjoint(t, mem, e.Placed)
	})
}
