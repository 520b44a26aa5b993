package kvmapi

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

// constants returns every KVM_ constant of const_amd64.go with its value.
func constants(t *testing.T) map[string]uint64 {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "const_amd64.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("kvmapi", fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok {
			all[name], _ = constant.Uint64Val(c.Val())
		}
	}
	return all
}

// layouts pairs each Go struct with its C type and, in the Go order, the C
// names of its fields; "-" is padding. A struct with room for a flexible array
// is compared without that array.
var layouts = []struct {
	goType any
	c      string
	fields string
}{
	{UserspaceMemoryRegion{}, "struct kvm_userspace_memory_region", "slot flags guest_phys_addr memory_size userspace_addr"},
	{DirtyLog{}, "struct kvm_dirty_log", "slot padding1 dirty_bitmap"},
	{IRQLevel{}, "struct kvm_irq_level", "irq level"},
	{IRQChip{}, "struct kvm_irqchip", "chip_id pad chip"},
	{PICState{}, "struct kvm_pic_state", "last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi rotate_on_auto_eoi special_fully_nested_mode init4 elcr elcr_mask"},
	{IOAPICState{}, "struct kvm_ioapic_state", "base_address ioregsel id irr pad redirtbl"},
	{PITConfig{}, "struct kvm_pit_config", "flags pad"},
	{PITChannelState{}, "struct kvm_pit_channel_state", "count latched_count count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate count_load_time"},
	{PITState2{}, "struct kvm_pit_state2", "channels flags reserved"},
	{IRQRouting{}, "struct kvm_irq_routing", "nr flags entries[]"},
	{IRQRoutingEntry{}, "struct kvm_irq_routing_entry", "gsi type flags pad u"},
	{IRQFD{}, "struct kvm_irqfd", "fd gsi flags resamplefd pad"},
	{IOEventFD{}, "struct kvm_ioeventfd", "datamatch addr len fd flags pad"},
	{MSI{}, "struct kvm_msi", "address_lo address_hi data flags devid pad"},
	{ClockData{}, "struct kvm_clock_data", "clock flags pad0 realtime host_tsc pad"},
	{DeviceAttr{}, "struct kvm_device_attr", "flags group attr addr"},
	{CPUID2{}, "struct kvm_cpuid2", "nent padding entries[]"},
	{CPUIDEntry2{}, "struct kvm_cpuid_entry2", "function index flags eax ebx ecx edx padding"},
	{MSRs{}, "struct kvm_msrs", "nmsrs pad entries[]"},
	{MSREntry{}, "struct kvm_msr_entry", "index reserved data"},
	{MSRList{}, "struct kvm_msr_list", "nmsrs indices[]"},
	{Regs{}, "struct kvm_regs", "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"},
	{Segment{}, "struct kvm_segment", "base limit selector type present dpl db s l g avl unusable padding"},
	{DTable{}, "struct kvm_dtable", "base limit padding"},
	{Sregs{}, "struct kvm_sregs", "cs ds es fs gs ss tr ldt gdt idt cr0 cr2 cr3 cr4 cr8 efer apic_base interrupt_bitmap"},
	{Translation{}, "struct kvm_translation", "linear_address physical_address valid writeable usermode pad"},
	{LAPICState{}, "struct kvm_lapic_state", "regs"},
	{X86MCE{}, "struct kvm_x86_mce", "status addr misc mcg_status bank pad1 pad2"},
	{MPState{}, "struct kvm_mp_state", "mp_state"},
	{VCPUEvents{}, "struct kvm_vcpu_events", "exception interrupt nmi sipi_vector flags smi triple_fault reserved exception_has_payload exception_payload"},
	{VCPUEvents{}.Exception, "typeof(((struct kvm_vcpu_events*)0)->exception)", "injected nr has_error_code pending error_code"},
	{VCPUEvents{}.Interrupt, "typeof(((struct kvm_vcpu_events*)0)->interrupt)", "injected nr soft shadow"},
	{VCPUEvents{}.NMI, "typeof(((struct kvm_vcpu_events*)0)->nmi)", "injected pending masked pad"},
	{VCPUEvents{}.SMI, "typeof(((struct kvm_vcpu_events*)0)->smi)", "smm pending smm_inside_nmi latched_init"},
	{DebugRegs{}, "struct kvm_debugregs", "db dr6 dr7 flags reserved"},
	{GuestDebug{}, "struct kvm_guest_debug", "control pad arch"},
	{XSave{}, "struct kvm_xsave", "region"},
	{XCR{}, "struct kvm_xcr", "xcr reserved value"},
	{XCRs{}, "struct kvm_xcrs", "nr_xcrs flags xcrs padding"},
	{RunIO{}, "typeof(((struct kvm_run*)0)->io)", "direction size port count data_offset"},
	{RunMMIO{}, "typeof(((struct kvm_run*)0)->mmio)", "phys_addr data len is_write"},
	{RunFailEntry{}, "typeof(((struct kvm_run*)0)->fail_entry)", "hardware_entry_failure_reason cpu"},
	{RunInternal{}, "typeof(((struct kvm_run*)0)->internal)", "suberror ndata data"},
	{RunEmulationFailure{}, "typeof(((struct kvm_run*)0)->emulation_failure)", "suberror ndata flags insn_size insn_bytes"},
	{RunDebug{}, "typeof(((struct kvm_run*)0)->debug.arch)", "exception pad pc dr6 dr7"},
	{RunSystemEvent{}, "typeof(((struct kvm_run*)0)->system_event)", "type ndata data"},
}

// runC compiles a C program that includes the kernel's headers and returns its output.
func runC(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	text := "#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void) {\n" + body + "return 0;\n}\n"
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("gcc (packages gcc and linux-libc-dev are needed): %v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("headers: %s; here: %s", g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Errorf("%d lines from the headers, %d here", len(g), len(w))
	}
}

func TestConstantsAreTheHeaders(t *testing.T) {
	var body, want strings.Builder
	for name, v := range constants(t) {
		fmt.Fprintf(&body, "printf(\"%s %%llu\\n\", (unsigned long long)(%s));\n", name, name)
		fmt.Fprintf(&want, "%s %d\n", name, v)
	}
	compare(t, runC(t, body.String()), want.String())
}

func TestLayoutsAreTheHeaders(t *testing.T) {
	var body, want strings.Builder
	for _, l := range layouts {
		typ := reflect.TypeOf(l.goType)
		names := strings.Fields(l.fields)
		if len(names) != typ.NumField() {
			t.Fatalf("%s: %d fields named, %d in Go", l.c, len(names), typ.NumField())
		}
		size := typ.Size()
		for i, n := range names {
			f := typ.Field(i)
			if c, flex := strings.CutSuffix(n, "[]"); flex {
				size = f.Offset
				fmt.Fprintf(&body, "printf(\"%s %s %%zu %%zu\\n\", offsetof(%s, %s), sizeof(((%s*)0)->%s[0]));\n", l.c, c, l.c, c, l.c, c)
				fmt.Fprintf(&want, "%s %s %d %d\n", l.c, c, f.Offset, f.Type.Elem().Size())
				continue
			}
			fmt.Fprintf(&body, "printf(\"%s %s %%zu %%zu\\n\", offsetof(%s, %s), sizeof(((%s*)0)->%s));\n", l.c, n, l.c, n, l.c, n)
			fmt.Fprintf(&want, "%s %s %d %d\n", l.c, n, f.Offset, f.Type.Size())
		}
		if strings.Contains(l.c, "emulation_failure") {
			continue // the header's union ends with the bytes that Go names, without a size of its own
		}
		fmt.Fprintf(&body, "printf(\"%s %%zu\\n\", sizeof(%s));\n", l.c, l.c)
		fmt.Fprintf(&want, "%s %d\n", l.c, size)
	}
	compare(t, runC(t, body.String()), want.String())
}

func TestRunsHeadIsTheHeaders(t *testing.T) {
	typ := reflect.TypeFor[Run]()
	var body, want strings.Builder
	for name, c := range map[string]string{"RequestInterruptWindow": "request_interrupt_window", "ImmediateExit": "immediate_exit",
		"ExitReason": "exit_reason", "ReadyForInterruptInjection": "ready_for_interrupt_injection", "IfFlag": "if_flag",
		"Flags": "flags", "CR8": "cr8", "APICBase": "apic_base", "Union": "io"} {
		f, _ := typ.FieldByName(name)
		fmt.Fprintf(&body, "printf(\"%s %%zu\\n\", offsetof(struct kvm_run, %s));\n", name, c)
		fmt.Fprintf(&want, "%s %d\n", name, f.Offset)
	}
	body.WriteString("printf(\"%zu\\n\", offsetof(struct kvm_run, kvm_valid_regs));\n")
	fmt.Fprintf(&want, "%d\n", unsafe.Sizeof(Run{}))
	compare(t, runC(t, body.String()), want.String())
}

func TestNamesAreComplete(t *testing.T) {
	for name, v := range constants(t) {
		var got string
		switch {
		case v > 0xae00 && !strings.HasPrefix(name, "KVM_GUESTDBG_"):
			got = Request(v).String()
		case strings.HasPrefix(name, "KVM_CAP_"):
			got = Cap(v).String()
		case strings.HasPrefix(name, "KVM_EXIT_") && !strings.HasPrefix(name, "KVM_EXIT_IO_"):
			got = ExitReason(v).String()
		default:
			continue
		}
		if got != name {
			t.Errorf("%s calls itself %q", name, got)
		}
	}
	for _, s := range []fmt.Stringer{Request(1), Cap(9999), ExitReason(9999), Suberror(9999)} {
		if !strings.ContainsAny(s.String(), "0123456789") {
			t.Errorf("unknown value calls itself %q", s)
		}
	}
}

func TestAnErrorNamesTheRequestAndItsArguments(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_, err = IoctlPtr(int(f.Fd()), KVM_IRQ_LINE, &IRQLevel{IRQ: 5, Level: 1})
	if err == nil || err.Error() != "KVM_IRQ_LINE({IRQ:5 Level:1}): inappropriate ioctl for device" {
		t.Errorf("got %v", err)
	}
	_, err = Ioctl(int(f.Fd()), KVM_CREATE_VCPU, 3)
	if err == nil || err.Error() != "KVM_CREATE_VCPU(0x3): inappropriate ioctl for device" {
		t.Errorf("got %v", err)
	}
}
