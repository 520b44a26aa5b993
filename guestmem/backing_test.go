package guestmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// open returns a memory of two regions, of low and high bytes.
func open(b Backing, low, high uint64) (*Memory, error) {
	b.Size = low + high
	m, err := NewBacked(b)
	if err != nil {
		return nil, err
	}
	for gpa, size := range map[uint64]uint64{0: low, 4 << 30: high} {
		if _, err := m.AddRAM(gpa, size); err != nil {
			_ = m.Close()
			return nil, err
		}
	}
	return m, nil
}

// pool makes n huge pages of 2 MiB free in the host's pool for this test.
func pool(t *testing.T, n int) {
	t.Helper()
	file := poolDir(2*mib) + "/nr_hugepages"
	set := func(v int) error { return os.WriteFile(file, []byte(strconv.Itoa(v)), 0) }
	read := func(name string) int {
		b, err := os.ReadFile(filepath.Join(poolDir(2*mib), name))
		if err != nil {
			t.Skipf("no huge pages here: %v", err)
		}
		v, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := read("nr_hugepages")
	if err := set(before + n - (read("free_hugepages") - read("resv_hugepages"))); err != nil {
		t.Skipf("the pool of huge pages is not ours to change: %v", err)
	}
	t.Cleanup(func() { _ = set(before) })
	if free := read("free_hugepages") - read("resv_hugepages"); free != n {
		t.Skipf("%d huge pages free where %d were asked for", free, n)
	}
}

// resident returns how many KiB of a region have memory, and the KiB of its
// mapping's pages, by /proc/self/smaps.
func resident(t *testing.T, r *Region) (rss, page int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for _, line := range strings.Split(string(b), "\n") {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from == uint64(r.HostAddr())
			continue
		}
		f := strings.Fields(line)
		if !inside || len(f) < 2 {
			continue
		}
		v, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "Rss:", "Shared_Hugetlb:", "Private_Hugetlb:":
			rss += v
		case "KernelPageSize:":
			page = v
		}
	}
	if page == 0 {
		t.Fatalf("no mapping at 0x%x", r.HostAddr())
	}
	return rss, page
}

// Every kind of memory is zero at first, keeps what is written, and is zero
// again once cleared.
func TestEveryBackingHoldsAndClears(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/used", []byte(strings.Repeat("x", 12*mib)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b     Backing
		pages int
	}{
		"anonymous":                  {},
		"memfd":                      {b: Backing{Share: true}},
		"huge pages":                 {Backing{HugePages: 2 * mib}, 6},
		"the usual huge pages":       {Backing{HugePages: UsualHugePages}, 6},
		"memfd of huge pages":        {Backing{HugePages: 2 * mib, Share: true}, 6},
		"private file":               {b: Backing{File: dir + "/private"}},
		"shared file":                {b: Backing{File: dir + "/shared", Share: true}},
		"private file that was used": {b: Backing{File: dir + "/used"}},
		"shared file that was used":  {b: Backing{File: dir + "/used", Share: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.pages > 0 {
				pool(t, c.pages)
			}
			m, err := open(c.b, 8*mib, 4*mib)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			for range 2 {
				for _, gpa := range []uint64{0, 8*mib - 8, 4 << 30, 4<<30 + 4*mib - 8} {
					if v, err := m.Load64(gpa); v != 0 || err != nil {
						t.Errorf("0x%x reads 0x%x, %v", gpa, v, err)
					}
					if err := m.Store64(gpa, gpa+1); err != nil {
						t.Error(err)
					}
				}
				for _, gpa := range []uint64{0, 8*mib - 8, 4 << 30, 4<<30 + 4*mib - 8} {
					if v, _ := m.Load64(gpa); v != gpa+1 {
						t.Errorf("0x%x reads 0x%x once written", gpa, v)
					}
				}
				if err := m.Clear(); err != nil {
					t.Fatal(err)
				}
			}
			if _, page := resident(t, m.Regions()[0]); (page == 2048) != (c.pages > 0) {
				t.Errorf("pages of %d KiB", page)
			}
		})
	}
}

func TestSharedMemoryIsOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ram")
	m, err := open(Backing{File: path, Share: true}, 4*mib, 2*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i, r := range m.Regions() {
		if err := m.Write(r.GPA+5, []byte{byte(0x11 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 6*mib {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i, r := range m.Regions() {
		if got := b[r.fileOffset+5]; got != byte(0x11+i) {
			t.Errorf("region 0x%x: the file has 0x%x", r.GPA, got)
		}
	}
	// The space is there: no page of it can be missing later.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 < 6*mib {
		t.Errorf("%d KiB are allocated, %v", st.Blocks/2, err)
	}
	if _, err := NewBacked(Backing{File: path, Size: 6 * mib}); err == nil || !strings.Contains(err.Error(), "in use by another VM") {
		t.Errorf("a second VM: %v", err)
	}
}

func TestPrefault(t *testing.T) {
	for name, b := range map[string]Backing{"anonymous": {}, "memfd": {Share: true}, "file": {File: filepath.Join(t.TempDir(), "f"), Share: true}} {
		m, err := open(b, 24*mib, 10*mib)
		if err != nil {
			t.Fatal(err)
		}
		if rss, _ := resident(t, m.Regions()[0]); rss != 0 {
			t.Errorf("%s: %d KiB before", name, rss)
		}
		for range 2 {
			if err := m.Prefault(); err != nil {
				t.Fatal(err)
			}
			for i, want := range []int{24, 10} {
				if rss, _ := resident(t, m.Regions()[i]); rss != want<<10 {
					t.Errorf("%s: %d KiB of %d MiB", name, rss, want)
				}
			}
			if err := m.Clear(); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The host would not refuse: it would look for a process to kill.
func TestPrefaultOfMoreThanTheHostHas(t *testing.T) {
	m := New()
	defer m.Close()
	if _, err := m.AddRAM(0, 8<<40); err != nil {
		t.Fatal(err)
	}
	if err := m.Prefault(); err == nil || !strings.HasPrefix(err.Error(), "memory: 8192G cannot be taken in advance: the host has ") {
		t.Errorf("%v", err)
	}
}

func TestInParallelMeetsEveryByteOnce(t *testing.T) {
	for _, n := range []int{1, PageSize, hugePage, 3*hugePage + PageSize, 64 * mib} {
		p := make([]byte, n)
		err := inParallel(p, func(q []byte) error {
			for i := range q {
				q[i]++
			}
			return nil
		})
		for i, v := range p {
			if v != 1 || err != nil {
				t.Fatalf("byte %d of %d was met %d times, %v", i, n, v, err)
			}
		}
	}
	if err := inParallel(make([]byte, 64*mib), func([]byte) error { return unix.ENOMEM }); !errors.Is(firstOf(err), unix.ENOMEM) {
		t.Errorf("%v", err)
	}
}

func TestBackingsThatCannotBeHad(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/other", []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for want, b := range map[string]Backing{
		"this host has no huge pages of 512G":        {HugePages: 512 << 30},
		"/other: is 8 bytes long, not empty and not": {File: dir + "/other"},
		": is not a regular file":                    {File: dir + "/fifo"},
		": is a directory":                           {File: dir},
		": no such file or directory":                {File: dir + "/none/ram"},
		": is in use by another VM":                  {File: dir + "/held"},
	} {
		if strings.Contains(b.File, "held") {
			held, err := open(Backing{File: b.File}, mib, mib)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
		}
		_, err := open(b, 8*mib, 2*mib)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "memory: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if b, err := os.ReadFile(dir + "/other"); string(b) != "precious" {
		t.Errorf("a file that was refused holds %q, %v", b, err)
	}
}

// Too few huge pages: how many there must be, and the command that makes them.
func TestPoolTooSmall(t *testing.T) {
	pool(t, 3)
	for _, share := range []bool{false, true} {
		_, err := open(Backing{HugePages: 2 * mib, Share: share}, 4*mib, 4*mib)
		if err == nil || !strings.Contains(err.Error(), "memory: 8M need 4 huge pages of 2M, and 3 are free: run sysctl vm.nr_hugepages=") {
			t.Fatalf("share %v: %v", share, err)
		}
		var want, all int
		if _, e := fmt.Sscanf(err.Error()[strings.LastIndex(err.Error(), "=")+1:], "%d", &want); e != nil {
			t.Fatal(e)
		}
		b, _ := os.ReadFile(poolDir(2*mib) + "/nr_hugepages")
		if _, e := fmt.Sscan(string(b), &all); e != nil || want != all+1 {
			t.Errorf("share %v: %d pages are asked for where %d are and 1 is missing", share, want, all)
		}
	}
}

func TestHugePagesWantWholeRegions(t *testing.T) {
	pool(t, 2)
	m, err := NewBacked(Backing{HugePages: 2 * mib, Size: 4 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, c := range [][2]uint64{{mib, 2 * mib}, {0, 3 * mib}, {0, 6 * mib}} {
		if _, err := m.AddRAM(c[0], c[1]); err == nil {
			t.Errorf("0x%x+0x%x was added", c[0], c[1])
		}
	}
}

func TestBind(t *testing.T) {
	if _, err := os.Stat("/sys/devices/system/node/has_memory"); err != nil {
		t.Skipf("no NUMA here: %v", err)
	}
	m, err := open(Backing{}, 8*mib, 2*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i, c := range []struct {
		gpa, size uint64
		p         Policy
		nodes     []int
		want      string // in /proc/self/numa_maps
	}{
		{0, 2 * mib, PolicyBind, []int{0}, "bind:0"},
		{2 * mib, 2 * mib, PolicyInterleave, []int{0}, "interleave:0"},
		{4 << 30, 2 * mib, PolicyPreferred, []int{0}, "prefer:0"},
		{4 * mib, 2 * mib, PolicyDefault, nil, "default"},
	} {
		if err := m.Bind(c.gpa, c.size, c.p, c.nodes); err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		b, err := m.Slice(c.gpa, c.size)
		if err != nil {
			t.Fatal(err)
		}
		if got := policyAt(t, m, c.gpa); !strings.HasPrefix(got, c.want) {
			t.Errorf("0x%x+0x%x has policy %q, want %s", c.gpa, len(b), got, c.want)
		}
	}
	for want, nodes := range map[string][]int{"the host has no NUMA node 77 with memory: it has ": {0, 77}, "no NUMA node 99999": {99999}, "no NUMA node -1": {-1}} {
		if err := m.Bind(0, mib, PolicyBind, nodes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", nodes, err)
		}
	}
	if err := m.Bind(7*mib, 2*mib, PolicyBind, []int{0}); err == nil {
		t.Error("memory past the region was bound")
	}
}

// policyAt reads the policy of the mapping that holds gpa.
func policyAt(t *testing.T, m *Memory, gpa uint64) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/numa_maps")
	if err != nil {
		t.Skipf("no numa_maps here: %v", err)
	}
	r := m.Find(gpa)
	host := uint64(r.HostAddr()) + gpa - r.GPA
	policy := ""
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if at, err := strconv.ParseUint(f[0], 16, 64); err == nil && at <= host {
			policy = f[1]
		}
	}
	return policy
}

func TestInList(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5} {
		if !inList(n, "0-2,5") {
			t.Errorf("%d is not in 0-2,5", n)
		}
	}
	for _, n := range []int{3, 4, 6} {
		if inList(n, "0-2,5") || inList(n, "") {
			t.Errorf("%d is in 0-2,5", n)
		}
	}
}
