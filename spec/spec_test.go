package spec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]uint64{
		"512M": 512 << 20, "512": 512 << 20, "1g": 1 << 30, "64GiB": 64 << 30, "16384K": 16 << 20, "2TB": 2 << 40, "0": 0,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"-1M": "negative", "": "not a number", "M": "not a number", "12Q": "not a number",
		"99999999999P": "too large", "1.5G": "not a number", "18446744073709551616": "not a number", "5B": "not a number",
	} {
		if _, err := ParseSize(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSize(%q): %v; want %q", in, err, want)
		}
	}
}

func TestFormatSizeRoundTrip(t *testing.T) {
	for _, s := range []string{"1K", "512M", "1536M", "64G", "3T"} {
		n, err := ParseSize(s)
		if err != nil || FormatSize(n) != s {
			t.Errorf("%s became %s (%v)", s, FormatSize(n), err)
		}
	}
}

func TestParseDisk(t *testing.T) {
	got, err := ParseDisk("file=/a,,b.img,format=raw,readonly=on,serial=S1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Disk{File: "/a,b.img", Format: "raw", ReadOnly: true, Serial: "S1"}, got); diff != "" {
		t.Error(diff)
	}
	for in, want := range map[string]string{
		"file=a,iops=1,throttling.iops-total=1": "given twice",
		"file=a,throttling.iops-totl=1":         `did you mean "throttling.iops-total"?`,
		"file=a,bps=1.5M":                       `"1.5M" is not a number`,
		"file=a,bps=-1":                         `"-1" is not a number`,
		"file=a,cache=writebakc":                `did you mean "writeback"?`,
		"fiel=x":                                `did you mean "file"?`,
		"x.img":                                 "write file=x.img",
		"format=raw":                            "no file",
		"file=a,readonly=may":                   "not on or off",
		"file=a,file=b":                         "given twice",
		"file=a,zzzzzz=1":                       "the keys are",
	} {
		if _, err := ParseDisk(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseDisk(%q): %v; want %q", in, err, want)
		}
	}
}

// TestThrottlingKeys: QEMU's long and short names both do.
func TestThrottlingKeys(t *testing.T) {
	got, err := ParseDisk("file=a,iops=100,bps_wr=10M,throttling.iops-total-max=200,throttling.iops-total-max-length=30,throttling.iops-size=4096,detect-zeroes=on,node-name=n")
	if err != nil {
		t.Fatal(err)
	}
	want := Disk{File: "a", DetectZeroes: "on", NodeName: "n", Throttling: Throttling{IOPSTotal: 100, BPSWrite: 10 << 20, IOPSTotalMax: 200, IOPSTotalMaxLength: 30, IOPSSize: 4096}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestValidate(t *testing.T) {
	valid := Default()
	valid.Boot.Kernel = "vmlinuz"
	if err := valid.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := valid.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Machine){
		"no kernel":           func(m *Machine) { m.Boot.Kernel = "" },
		"one word":            func(m *Machine) { m.Name = "a b" },
		"at least 1 is":       func(m *Machine) { m.CPUs.Count = 0 },
		"-3 CPUs":             func(m *Machine) { m.CPUs.Count = -3 },
		"at most 255":         func(m *Machine) { m.CPUs.Count = 10000 },
		"too small":           func(m *Machine) { m.Memory.Size = 1 << 20 },
		"0B is too small":     func(m *Machine) { m.Memory.Size = 0 },
		"too large":           func(m *Machine) { m.Memory.Size = 1 << 60 },
		"multiple of 1M":      func(m *Machine) { m.Memory.Size = 64<<20 + 1 },
		"use auto, kvm, soft": func(m *Machine) { m.Accel = "hax" },
		"did you mean":        func(m *Machine) { m.Disks = []Disk{{File: "a", Format: "qcow9", Queues: 1}} },
		"cache":               func(m *Machine) { m.Disks = []Disk{{File: "a", Cache: "never", Queues: 1}} },
		"add discard=unmap":   func(m *Machine) { m.Disks = []Disk{{File: "a", DetectZeroes: "unmap", Queues: 1}} },
		`id "1a": up to 31`:   func(m *Machine) { m.Disks = []Disk{{File: "a", ID: "1a", Queues: 1}} },
		`node-name "x" is`: func(m *Machine) {
			m.Disks = []Disk{{File: "a", ID: "x", Queues: 1}, {File: "b", NodeName: "x", Queues: 1}}
		},
		"discard":              func(m *Machine) { m.Disks = []Disk{{File: "a", Format: "raw", Discard: "x", Queues: 1}} },
		"1 to 64 are possible": func(m *Machine) { m.Disks = []Disk{{File: "a", Format: "raw", Discard: "unmap", Queues: 65}} },
		"longer than 20":       func(m *Machine) { m.Disks = []Disk{{File: "a", Format: "raw", Serial: strings.Repeat("s", 21)}} },
	} {
		m := valid
		change(&m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	m := Default()
	m.Boot.Kernel = "vmlinuz"
	m.Disks = []Disk{{File: "a", Format: "raw", ReadOnly: true, Discard: "ignore", Queues: 1}}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Machine
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Error(diff)
	}
}

func TestBoards(t *testing.T) {
	for in, want := range map[string]string{"q35": "q35-2", "q35-1": "q35-1", "q35-2": "q35-2", "microvm": "microvm-1"} {
		m := Default()
		m.Board = in
		if err := m.Complete(); err != nil || m.Board != want {
			t.Errorf("%s: %s, %v", in, m.Board, err)
		}
	}
	for in, want := range map[string]string{
		"q53": `machine "q53" is not known: did you mean "q35"?`, "q35-9": `did you mean "q35-1"?`,
		"": `machine "" is not known: use `, "pc-i440fx-9.2": "use microvm, microvm-1, q35, q35-1, q35-2",
	} {
		m := Default()
		m.Board = in
		if err := m.Complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}
