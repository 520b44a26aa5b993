package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read writes text to a machine file and reads it.
func read(t *testing.T, name, text string) (Machine, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Default()
	err := m.ReadFile(path)
	return m, path, err
}

func TestMachineFile(t *testing.T) {
	m, path, err := read(t, "web.yaml", `
name: web
machine: q35
accel: soft
cpus: 4,sockets=2
memory: {size: 2G, hugepages: off, prefault: on}
numa:
  nodes:
    - {cpus: 0-1, memory: 1G}
    - cpus: [2, 3]
      memory: 1G
  distances:
    - {src: 0, dst: 1, val: 21}
boot:
  kernel: boot/vmlinuz
  initrd: ../initrd.img
  cmdline: "console=ttyS0"
disks:
  - file: root.img
    serial: 123
    readonly: yes
  - {file: /dev/null, format: raw}
noReboot: true
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := Default()
	want.Name, want.Accel, want.NoReboot = "web", "soft", true
	want.CPUs = CPUs{Count: 4, Sockets: 2}
	want.Memory = Memory{Size: 2 << 30, HugePages: "off", Prefault: true}
	want.NUMA = NUMA{
		Nodes:     []Node{{CPUs: Set{0, 1}, Memory: 1 << 30}, {CPUs: Set{2, 3}, Memory: 1 << 30}},
		Distances: []Distance{{0, 1, 21}},
	}
	want.Boot.Kernel, want.Boot.Initrd, want.Boot.Cmdline = dir+"/boot/vmlinuz", Files{filepath.Dir(dir) + "/initrd.img"}, "console=ttyS0"
	want.Disks = []Disk{{File: dir + "/root.img", Serial: "123", ReadOnly: true}, {File: "/dev/null", Format: "raw"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestBadMachineFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       ": is empty",
		"# nothing\n":                            ": is empty",
		"kernel\n":                               ":1: the machine: its keys are expected here",
		"- a\n":                                  ":1: the machine: its keys are expected here",
		"name: a\nnome: b\n":                     `:2: unknown key "nome": did you mean "name"?`,
		"debug-exit: on\n":                       `:1: unknown key "debug-exit": write it "debugExit"`,
		"boot:\n  kernel: k\n  zzzzzzzz: 1\n":    `:3: unknown key "zzzzzzzz": the keys of boot are kernel, initrd, cmdline, decompress`,
		"disks:\n- fiel: a\n":                    `:2: unknown key "fiel": did you mean "file"?`,
		"disks:\n- a.img\n":                      `:2: disks[0]: "a.img": its keys are needed here`,
		"disks: a.img\n":                         `:1: disks: "a.img": its keys are needed here`,
		"disks: {file: a}\n":                     ":1: disks: one value is expected here",
		"name: [a]\n":                            ":1: name: one value is expected here",
		"name:\n":                                ":1: name has no value",
		"memory: much\n":                         `:1: memory: size: size "much" is not a number`,
		"memory:\n  size: 1G\n  hugepages: 3M\n": `:3: hugepages: "3M" is not known: use off, on, 2M, 1G`,
		"memory: {size: 1G,\n policy: bnid}\n":   `:2: policy: "bnid" is not known: did you mean "bind"?`,
		"cpus: {count: four}\n":                  `:1: count: "four" is not a number`,
		"cpus: {count: 0}\n":                     ":1: count: 0: at least 1 is needed",
		"accel: hax\n":                           `:1: accel: "hax" is not known: use auto, kvm, soft`,
		"noReboot: perhaps\n":                    `:1: noReboot: "perhaps" is not on or off`,
		"name: a\nname: b\n":                     ":2: name is given on line 1 already",
		"name: a\n  b: c\n":                      ":2: mapping values are not allowed in this context",
		"{\"name\": \"a\",\n\"cpus\": }\n":       ":2: ",
		"a: &x [*x]\n":                           ":1: ",
		"numa: {nodes: [{cpus: [1, -1]}]}\n":     ":1: cpus[1]: -1: at least 0 is needed",
	} {
		_, path, err := read(t, "m.yaml", text)
		if err == nil || !strings.HasPrefix(err.Error(), "machine file "+path+want[:1]) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none.yaml"): "none.yaml: no such file or directory",
		t.TempDir():                             "is not a regular file",
	} {
		m := Default()
		if err := m.ReadFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	large := filepath.Join(t.TempDir(), "disk.yaml")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<30); err != nil {
		t.Fatal(err)
	}
	m := Default()
	if err := m.ReadFile(large); err == nil || !strings.Contains(err.Error(), "not a machine file") {
		t.Errorf("%v", err)
	}
}

// fill gives every field under v a value of its own that is valid for its tags.
func fill(t *testing.T, v reflect.Value, f *field, n *int) {
	t.Helper()
	*n++
	switch {
	case v.Type() == reflect.TypeFor[Set]():
		v.Set(reflect.ValueOf(Set{*n, *n + 1, *n + 5}))
	case v.Type() == reflect.TypeFor[Size]():
		v.SetUint(uint64(*n) << 20)
	case v.Kind() == reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			fill(t, v.FieldByIndex(f.index), &f, n)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), f, n)
		fill(t, v.Index(1), f, n)
	case len(f.words) > 0:
		v.SetString(f.words[len(f.words)-1])
	case f.path:
		v.SetString("/file" + string(rune('a'+*n%26)))
	case v.Kind() == reflect.String:
		v.SetString([]string{"on", "null", "1", "a: b # c", "ümlaut,\"quoted\"\n"}[*n%5])
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Int || v.Kind() == reflect.Int64:
		v.SetInt(int64(*n))
	default:
		t.Fatalf("a machine file has no form for %s", v.Type())
	}
}

// Whatever a machine has, both forms of its file say, and are read back alike.
func TestEveryFieldSurvivesItsFile(t *testing.T) {
	var m Machine
	n := 0
	fill(t, reflect.ValueOf(&m).Elem(), &field{}, &n)
	if n < 40 {
		t.Fatalf("%d fields were found", n)
	}
	for name, form := range map[string]func() ([]byte, error){"m.json": m.JSON, "m.yaml": m.YAML} {
		text, err := form()
		if err != nil {
			t.Fatal(err)
		}
		back, _, err := read(t, name, string(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Errorf("%s: %s\n%s", name, diff, text)
		}
	}
	b, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var back Machine
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Errorf("encoding/json: %s", diff)
	}
}

// A completed machine that is given back stays as it is.
func TestCompleteTwiceIsOnce(t *testing.T) {
	m := Default()
	m.Boot.Kernel = "k"
	m.Disks = []Disk{{File: "a"}}
	if err := m.CPUs.Set("6,sockets=2"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.NUMA.Add("node"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	again := m
	if err := again.Complete(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, again); diff != "" {
		t.Error(diff)
	}
}

func FuzzMachineFile(f *testing.F) {
	f.Add([]byte("name: web\nmemory: 1G\ncpus: {count: 4, sockets: 2}\nboot: {kernel: k, initrd: [a, b]}\n"))
	f.Add([]byte(`{"version": 1, "disks": [{"file": "a", "readonly": true}], "numa": {"nodes": [{"cpus": "0-3,6"}]}}`))
	f.Add([]byte("a: &a\n  b: *a\n"))
	f.Add([]byte("disks: &d [{file: x}]\nnuma: {nodes: *d}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Default()
		if err := m.decode("f", "/", b); err != nil {
			return
		}
		if m.Complete() == nil {
			_ = m.Validate()
		}
	})
}

func TestWordsOfFields(t *testing.T) {
	for path, want := range map[string]int{"accel": 3, "boot.decompress": 3, "boot.kernel": 0, "nowhere": 0, "boot.nowhere": 0, "": 0} {
		if got := Words(path); len(got) != want {
			t.Errorf("%q: %q, want %d", path, got, want)
		}
	}
}
