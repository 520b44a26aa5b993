package acpi

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// small is a board with little on it, and processors with the APIC IDs from 0 up.
func small(cpus int) Config {
	var ids []uint32
	for id := range cpus {
		ids = append(ids, uint32(id))
	}
	return Board(ids)
}

// full is a board with everything on it.
func full(cpus int) Config {
	c := small(cpus)
	c.PIC, c.RTC, c.I8042, c.VGA, c.Panic = true, true, true, true, 0x505
	c.ECAM = Range{0xb0000000, 256 << 20}
	c.SocketSize = 2
	c.PM.GPE0, c.PM.GPE0Len = 0x620, 16
	c.SlotPort, c.Slots = 0xcc0, []Slot{{0xe0, 1}, {0xe1, 2}}
	c.PCIWindows = []Range{{0xc0000000, 0x3ec00000}, {1 << 40, 1 << 39}}
	for dev := range uint8(3) {
		for pin := range uint8(4) {
			c.PCIRoutes = append(c.PCIRoutes, Route{dev, pin, 16 + uint32(dev+pin)%8})
		}
	}
	c.Virtio = []Virtio{{Range{0xd0000000, 0x1000}, 16}, {Range{0xd0001000, 0x1000}, 17}}
	c.Nodes = []Node{{Memory: []Range{{0, 2 << 30}, {4 << 30, 1 << 30}}}, {Memory: []Range{{5 << 30, 3 << 30}}}}
	for cpu := range cpus {
		n := &c.Nodes[cpu%2]
		n.CPUs = append(n.CPUs, cpu)
	}
	c.Distances = [][]uint8{{10, 21}, {31, 10}}
	return c
}

func build(t *testing.T, c Config) *Tables {
	t.Helper()
	tables, err := Build(c, 0xe0000, 0x100000)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func TestChecksumsAndPointers(t *testing.T) {
	le := binary.LittleEndian
	tables := build(t, full(300))
	at := func(addr uint64) []byte { return tables.Bytes[addr-tables.Base:] }
	r := at(tables.RSDP)
	if string(r[:8]) != "RSD PTR " || checksum(r[:20]) != 0 || checksum(r[:36]) != 0 {
		t.Errorf("RSDP % x", r[:36])
	}
	var found []string
	walk := func(addr uint64) []byte {
		b := at(addr)
		b = b[:le.Uint32(b[4:])]
		if sig := string(b[:4]); sig != "FACS" && checksum(b) != 0 {
			t.Errorf("%s: checksum %d", sig, checksum(b))
		}
		found = append(found, string(b[:4]))
		return b
	}
	for b := walk(le.Uint64(r[24:]))[headerSize:]; len(b) > 0; b = b[8:] {
		if f := walk(le.Uint64(b)); string(f[:4]) == "FACP" {
			walk(uint64(le.Uint32(f[36:])))
			walk(le.Uint64(f[140:]))
			if uint64(le.Uint32(f[40:])) != le.Uint64(f[140:]) {
				t.Error("the FADT has two DSDTs")
			}
		}
	}
	if got := strings.Join(found, " "); got != "XSDT FACP FACS DSDT APIC WAET MCFG SRAT SLIT" {
		t.Errorf("reached from the RSDP: %s", got)
	}
}

// decompile disassembles a table with iasl, compiles the result again, fails on
// any complaint, and returns the source without its comments at the top.
func decompile(t *testing.T, p Part) string {
	t.Helper()
	dir := t.TempDir()
	iasl := func(args ...string) {
		cmd := exec.Command("iasl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("Warning ")) || bytes.Contains(out, []byte("Error ")) {
			t.Fatalf("iasl %v: %v\n%s", args, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "table.aml"), p.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	iasl("-d", "table.aml")
	iasl("-oa", "-p", "again", "table.dsl") // no optimisation: bytes stay as they are
	again, err := os.ReadFile(filepath.Join(dir, "again.aml"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Signature != "FACS" && !bytes.Equal(again[headerSize:], p.Bytes[headerSize:]) {
		t.Errorf("%s: recompiled source differs from the table", p.Signature)
	}
	src, err := os.ReadFile(filepath.Join(dir, "table.dsl"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(src), "*/\n")
	body, _, _ = strings.Cut(body, "\nRaw Table Data")
	return strings.TrimSpace(body) + "\n"
}

func TestIaslAcceptsEveryTable(t *testing.T) {
	for _, cpus := range []int{1, 4, 300} {
		for _, p := range build(t, full(cpus)).Parts[1:] {
			decompile(t, p)
		}
	}
	for _, p := range build(t, small(1)).Parts[1:] {
		decompile(t, p)
	}
}

// The golden files are what iasl makes of the tables of a board with two
// processors; `go test ./acpi -update` rewrites them.
func TestTablesReadAsIntended(t *testing.T) {
	for _, p := range build(t, full(2)).Parts[1:] {
		got := decompile(t, p)
		file := filepath.Join("testdata", strings.ToLower(p.Signature)+".dsl")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs from %s:\n%s", p.Signature, file, got)
		}
	}
}

// TestPCIRootHasANode where there are nodes: ACPI §6.2.14.
func TestPCIRootHasANode(t *testing.T) {
	c := full(4)
	if len(c.Nodes) == 0 || !bytes.Contains(c.dsdt(), []byte("_PXM")) {
		t.Error("nodes, and no _PXM")
	}
	c.Nodes, c.Distances = nil, nil
	if bytes.Contains(c.dsdt(), []byte("_PXM")) {
		t.Error("a _PXM, and no nodes")
	}
}

func TestX2APICIDsFrom255(t *testing.T) {
	c := Board([]uint32{0, 254, 255, 1000})
	c.Nodes = []Node{{CPUs: []int{0, 1, 2, 3}}}
	for _, table := range []struct {
		name    string
		entries []byte
		want    []byte
	}{
		{"MADT", c.madt()[8:], []byte{madtLAPIC, madtLAPIC, madtX2APIC, madtX2APIC, madtIOAPIC, madtOverride, madtLAPICNMI, madtX2APICNMI}},
		{"SRAT", c.srat()[12:], []byte{sratLAPIC, sratLAPIC, sratX2APIC, sratX2APIC}},
	} {
		var kinds []byte
		for b := table.entries; len(b) > 0; b = b[b[1]:] {
			kinds = append(kinds, b[0])
		}
		if !bytes.Equal(kinds, table.want) {
			t.Errorf("%s: entries %v, want %v", table.name, kinds, table.want)
		}
	}
}

func TestPackageLengths(t *testing.T) {
	for _, n := range []int{0, 1, 62, 63, 64, 4093, 4094, 4095, 1<<20 - 4, 1<<20 - 3, 1 << 20} {
		b := pkg(make([]byte, n))
		follow := int(b[0] >> 6)
		got := int(b[0] & 0x3f)
		for i := range follow {
			if i == 0 {
				got &= 0xf
			}
			got |= int(b[1+i]) << (4 + 8*i)
		}
		if got != len(b) || len(b) != n+1+follow {
			t.Errorf("%d bytes: length field says %d, package has %d", n, got, len(b))
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no processors":  func(c *Config) { c.CPUs = nil },
		"empty window":   func(c *Config) { c.PCIWindows = []Range{{}} },
		"wrapped window": func(c *Config) { c.PCIWindows = []Range{{1 << 63, 1<<63 + 1}} },
		"ECAM size":      func(c *Config) { c.ECAM.Size = 1 },
		"ECAM place":     func(c *Config) { c.ECAM.Base = 1 << 32 },
		"pin":            func(c *Config) { c.PCIRoutes = []Route{{0, 4, 16}} },
		"serial IRQ":     func(c *Config) { c.Serial = []Serial{{0x3f8, 16}} },
		"virtio place":   func(c *Config) { c.Virtio = []Virtio{{Range{1 << 32, 0x1000}, 16}} },
		"no distances":   func(c *Config) { c.Distances = nil },
		"short distance": func(c *Config) { c.Distances[1] = c.Distances[1][:1] },
		"far from self":  func(c *Config) { c.Distances[1][1] = 20 },
		"node's CPU":     func(c *Config) { c.Nodes[0].CPUs = []int{1} },
		"node's memory":  func(c *Config) { c.Nodes[0].Memory = []Range{{1 << 63, 1 << 63}} },
	} {
		c := full(1)
		change(&c)
		if _, err := Build(c, 0xe0000, 0x100000); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Build(full(4096), 0xe0000, 0x100000); err == nil {
		t.Error("tables larger than their place: accepted")
	}
	if _, err := Build(full(1024), 0xe0000, 0x100000); err != nil {
		t.Errorf("1024 processors: %v", err)
	}
}
