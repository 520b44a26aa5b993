package qmp

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/hmp.md anew")

// human is a line of the human monitor. Both print the same, or why says what is not
// the same and for what reason.
type human struct{ line, why string }

// humanLines are held with a guest that halts, in 32-bit mode without paging.
var humanLines = []human{
	{"info status", ""},
	{"cont", ""},
	{"stop", ""},
	{"info status", ""},
	{"nosuch", ""},
	{"info nosuch", ""},
	{"help nosuch", ""},
	{"help x", ""},
	{"help print", ""},
	{"info version", "berth's own version, after that of the protocol"},
	{"info name", ""},
	{"info uuid", ""},
	{"info kvm", ""},
	{"info cpus", ""},
	{"cpu 7", ""},
	{"info registers", "what the boot loader left in registers is not the same: QEMU's firmware was there before"},
	{"info registers 9", ""},
	{"info mem", ""},
	{"info tlb", ""},
	{"info lapic", "the firmware has set it up; the soft engine's CPUs may count with the TSC"},
	{"info lapic 9", ""},
	{"info pic", "the firmware has routed interrupts"},
	{"info irq", "the firmware has used the timer"},
	{"x /4xb 0x100060", ""},
	{"x /3i 0x100060", ""},
	{"xp /3xw 0x100054", ""},
	{"xp /2dh 0x100060", ""},
	{"xp /2uw 0x100058", ""},
	{"xp /2ob 0x100060", ""},
	{"xp /1xg 0x10005c", ""},
	{"xp /4cb 0x100060", ""},
	{"xp /4xw 0xdead00000000", ""},
	{"x /2s 0", ""},
	{"x", ""},
	{"sum 0x100054 16", ""},
	{"print /x (1+2)*0x10", ""},
	{"print /d -1", ""},
	{"print /u -1", ""},
	{"print /o 8", ""},
	{"print /c 65", ""},
	{"p /x $cs", "the descriptor table is the boot loader's"},
	{"p $nosuch", ""},
	{"p 1/0", ""},
	{"p (1+2", ""},
	{"p 1 2", ""},
	{"i /b 0x3fb", "the firmware has set the port's line control"},
	{"o /b 0x80 1", ""},
	{"gva2gpa 0x100000", ""},
	{"gpa2hva 0x100000", ""},
	{"gpa2hva 0xfee00000", "the local APICs are each vCPU's own, not memory that others reach"},
	{"info memory_size_summary", ""},
	{"info numa", ""},
	{"info iothreads", ""},
	{"info memory-devices", ""},
	{"info history", ""},
	{"info dump", ""},
	{"info block", "the firmware has driven the disk without a write cache"},
	{"info block-jobs", ""},
	{"info blockstats", "the firmware has read the disk"},
	{"block_resize d0 2M", ""},
	{"block_resize nosuch 2M", ""},
	{"info chardev", "each has what it was started with"},
	{"info network", ""},
	{"info pci", "berth's board has fewer functions, and virtio 1 only; addresses are assigned by berth, not by firmware"},
	{"info mtree -f", "berth's devices; all masters see one address space"},
	{"info jit", "what each translator counts"},
	{"info qtree", "berth's devices, and few of their properties"},
	{"info qom-tree /machine/peripheral", "QEMU has its regions of memory in the tree, and no root ports here"},
	{"qom-list /machine", "those properties that there are"},
	{"qom-get /machine type", "berth's own boards"},
	{"qom-get /machine nosuch", "likewise"},
	{"qom-list /nosuch", ""},
	{"set_link nosuch on", ""},
	{"netdev_del nosuch", ""},
	{"netdev_add user,id=n9,restrict=on", ""},
	{"netdev_del n9", ""},
	{"netdev_add user", ""},
	{"announce_self", ""},
	{"info balloon", ""},
	{"device_add nosuch", ""},
	{"device_add", ""},
	{"device_del nosuch", ""},
	{"pmemsave 0x100000 16 memory", ""},
	{"pmemsave 0x100000", ""},
	{"memsave 0x100000 16 /nosuch/memory", ""},
	{"dump-guest-memory core", ""},
	{"dump-guest-memory", ""},
	{"info dump", ""},
	{"nmi", ""},
	{"system_wakeup", ""},
	{"system_reset", ""},
}

// varying is what is not the same from one run to the next.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\r`), ""},
	{regexp.MustCompile(`thread_id=\d+`), "thread_id=N"},
	{regexp.MustCompile(`#block\d+`), "#blockN"},
	{regexp.MustCompile(`0x7[0-9a-f]{11}\b`), "0x7…"},
}

// TestHuman compares what both print. With -update it writes docs/hmp.md.
func TestHuman(t *testing.T) {
	needQEMU(t)
	s := &session{
		images: []string{"create -f raw disk.img 1M"},
		berth:  []string{"--name", "vm1", "--cpus", "2", "--memory", "64M", "--uuid", "11111111-2222-3333-4444-555555555555", "--disk", "file=disk.img,format=raw,id=d0"},
		qemu:   []string{"-machine", "q35", "-name", "vm1", "-smp", "2", "-m", "64", "-uuid", "11111111-2222-3333-4444-555555555555", "-drive", "file=disk.img,format=raw,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=d0"},
	}
	ours, theirs := startBoth(t, s, buildBerth(t))
	doc := newTranscript()
	for _, h := range humanLines {
		a, b := h.say(t, ours), h.say(t, theirs)
		if h.line == "cont" {
			time.Sleep(time.Second) // until QEMU's firmware has started the kernel
		}
		switch {
		case a != b && h.why == "":
			t.Errorf("%s\nberth: %s\nQEMU:  %s", h.line, a, b)
		case a == b && h.why != "":
			t.Errorf("%s: no difference any more: %s", h.line, h.why)
		}
		doc.add(h, a, b)
	}
	if *update {
		if err := os.WriteFile("../../docs/hmp.md", []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// say types the line, and returns what is printed without what varies.
func (h human) say(t *testing.T, p *peer) string {
	t.Helper()
	line, err := json.Marshal(h.line)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.command(fmt.Sprintf(`{"execute": "human-monitor-command", "arguments": {"command-line": %s}}`, line))
	if err != nil {
		t.Fatal(err)
	}
	text, ok := m["return"].(string)
	if !ok {
		t.Fatalf("%s: %s: %v", p.name, h.line, m)
	}
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.with)
	}
	return text
}

// transcript is docs/hmp.md.
type transcript struct{ strings.Builder }

func newTranscript() *transcript {
	d := &transcript{}
	d.WriteString(`# The human monitor

The words are QEMU's. They are heard by ` + "`berth monitor VM`, by `berth run --hmp WHERE`, after Ctrl-A C on the console, and by QMP's\n`human-monitor-command`" + `. This file is written by ` + "`go test ./tests/qmp -run TestHuman -update`" + `: the same lines to berth and
to QEMU 7.2 (TCG), with a guest that halts in 32-bit mode. The test fails where they differ and no reason is stated.

Registers in expressions have QEMU's names, of which ` + "`$eax`" + ` is all 64 bits, and the CPU's: ` + "`$rax`, `$rip`, `$cr3`, `$efer`" + `. With format c a
value is a byte, whatever the size was last. Instructions are shown in the GNU assembler's AT&T syntax, without those of AVX.
One command prints 8 MiB at most. On KVM the chips in the host's kernel (8259s, 8254, I/O APIC) are shown by ` + "`info pic`" + `, and not
reached by ` + "`i`, `o` and `xp`" + `; nobody reaches local APICs so.

`)
	return d
}

// maxLines is how much of an answer is shown.
const maxLines = 24

func (d *transcript) add(h human, ours, theirs string) {
	fmt.Fprintf(d, "## `%s`\n\n", h.line)
	if ours == theirs {
		if ours == "" {
			d.WriteString("Both print nothing.\n\n")
			return
		}
		fmt.Fprintf(d, "Both:\n\n```\n%s```\n\n", shorten(ours))
		return
	}
	fmt.Fprintf(d, "Not the same: %s.\n\n", h.why)
	for _, p := range [][2]string{{"berth", ours}, {"QEMU", theirs}} {
		fmt.Fprintf(d, "%s:\n\n```\n%s```\n\n", p[0], shorten(p[1]))
	}
}

func shorten(s string) string {
	lines := strings.SplitAfter(s, "\n")
	if len(lines) > maxLines+1 {
		lines = append(lines[:maxLines], fmt.Sprintf("… %d lines more\n", len(lines)-1-maxLines))
	}
	return strings.Join(lines, "")
}
