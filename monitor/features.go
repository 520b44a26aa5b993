package monitor

import (
	"encoding/binary"
	"strings"
)

// word is a register of a CPUID leaf whose bits are features, with QEMU's names for
// them by bit; - is a bit without a name (Intel SDM vol. 2A, CPUID; AMD APM vol. 3 app. E).
type word struct {
	leaf, register uint32 // register: 0 EAX to 3 EDX
	names          string
}

func featureWords() []word {
	return []word{
		{1, 3, "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
		{1, 2, "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor"},
		{7, 1, "fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl"},
		{7, 2, "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks"},
		{7, 3, "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability ssbd"},
		{0x80000001, 2, "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb"},
		{0x80000001, 3, "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
		{0x80000007, 3, "- - - - - - - - invtsc"},
	}
}

// What each level of x86-64 adds to the one before, beyond what every CPU of berth has.
const (
	addedByV2 = "pni ssse3 cx16 sse4.1 sse4.2 popcnt"
	addedByV3 = "fma movbe avx f16c bmi1 avx2 bmi2 abm"
)

// cpuidFunc is CPUID: EAX to EDX.
type cpuidFunc func(leaf, sub uint32) [4]uint32

// cpuProperties are the properties of a CPU of a model on this host, where the VM's vCPUs
// have read as CPUID.
func cpuProperties(model string, read cpuidFunc) map[string]any {
	props := map[string]any{}
	for _, w := range featureWords() {
		v := read(w.leaf, 0)[w.register]
		for bit, name := range strings.Fields(w.names) {
			if name != "-" {
				props[name] = v>>bit&1 != 0
			}
		}
	}
	level := map[string]int{"v1": 1, "v2": 2}[model]
	for n, names := range []string{2: addedByV2, 3: addedByV3} {
		for _, name := range strings.Fields(names) {
			if level != 0 && n > level {
				props[name] = false
			} else if strings.HasPrefix(model, "v") {
				props[name] = true
			}
		}
	}
	first, one := read(0, 0), read(1, 0)
	family, kind := int64(one[0]>>8&15), int64(one[0]>>4&15)
	if family == 15 {
		family += int64(one[0] >> 20 & 0xff)
	}
	props["family"], props["model"], props["stepping"] = family, kind|int64(one[0]>>12&0xf0), int64(one[0]&15)
	props["vendor"] = registerText(first[1], first[3], first[2])
	props["model-id"] = brand(read)
	props["min-level"], props["min-xlevel"] = int64(first[0]), int64(read(0x80000000, 0)[0])
	return props
}

func brand(read cpuidFunc) string {
	var r []uint32
	for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ {
		v := read(leaf, 0)
		r = append(r, v[:]...)
	}
	return strings.TrimSpace(strings.TrimRight(registerText(r...), "\x00"))
}

func registerText(registers ...uint32) string {
	var b []byte
	for _, r := range registers {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return string(b)
}
