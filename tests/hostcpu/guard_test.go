//go:build amd64

package hostcpu

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/optab"
)

// guardEnv names the cases for a child of TestGuards: seed, first, how many.
const guardEnv = "HOSTCPU_GUARDS"

// TestGuards runs hostile code in translated code of a child process. Around the guest's
// RAM (guestmem), the vCPU's state and its table of jumps (interp) lie pages that nobody
// can touch: an access outside ends the child, and its last case is the one.
func TestGuards(t *testing.T) {
	if !jit.Available() {
		t.Skip("nothing is translated on this host")
	}
	if text := os.Getenv(guardEnv); text != "" {
		var seed uint64
		var first, n int
		if _, err := fmt.Sscan(text, &seed, &first, &n); err != nil {
			t.Fatal(err)
		}
		guardChild(t, seed, first, n)
		return
	}
	n := (*caseCount + 99) / 100
	cmd := exec.Command(os.Args[0], "-test.run=^TestGuards$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", guardEnv, *caseSeed, *firstCase, n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errors strings.Builder
	cmd.Stderr = &errors
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := "none"
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "case "); ok {
			last = text
		} else if strings.HasPrefix(lines.Text(), "ran ") {
			t.Log(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("case %s (-hostcpu.seed=%d -hostcpu.first=N -hostcpu.cases=1 -run TestGuards): %v\n%.3000s", last, *caseSeed, err, errors.String())
	}
}

// guardChild runs the cases, and says before each which it is.
func guardChild(t *testing.T, seed uint64, first, n int) {
	var h *hostile
	began, retired := time.Now(), uint64(0)
	for i := first; i < first+n; i++ {
		if h == nil || i%256 == 0 {
			if h != nil {
				h.Close()
			}
			h = newHostile(t)
		}
		fmt.Printf("case %d\n", i)
		if err := h.run(rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
			t.Fatal(err)
		}
		retired += h.cpu.Instructions - h.start
	}
	h.Close()
	fmt.Printf("ran %d cases, %d instructions, %v\n", n, retired, time.Since(began).Round(time.Millisecond))
}

// hostile is a machine whose RAM ends in the middle of a large page, with pages at
// every edge of the linear addresses.
type hostile struct {
	*seqSoft
	rows          []optab.Row
	image, tables []byte   // of the tables, as they are to be
	edges         []uint64 // linear addresses where something begins or ends
	rng           *rand.Rand
	left          int // exceptions after which the case goes on
	began         atomic.Int64
}

// Where the tables for the edges lie: all else there is free.
const (
	gpaEdges  = 0x60000
	gpaScrap  = 0x80000 // eight pages of data
	bigPage   = 0x180000000
	hugePage1 = 0x140000000
)

func newHostile(t *testing.T) *hostile {
	s, err := newSeqSoft(true, false, hostLevel())
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{seqSoft: s, rows: optab.Rows()}
	s.io.goesOn = h.goesOn
	next := uint64(gpaEdges)
	page := func(va, gpa, flags uint64) {
		table := uint64(gpaPML4)
		for shift := 39; shift > 12; shift -= 9 {
			at := table + va>>shift&511*8
			v, err := s.mem.Load64(at)
			if err != nil {
				t.Fatal(err)
			}
			if v&1 == 0 {
				v = next | 1 | 2 | 4 | 1<<5
				next += 0x1000
				h.put(t, at, v)
			}
			table = v &^ 0xfff & (1<<40 - 1)
		}
		h.put(t, table+va>>12&511*8, gpa|flags)
		h.edges = append(h.edges, va, va+0x1000)
	}
	const user = uint64(pteUser | pteWrite)
	for i, va := range []uint64{0, 1<<47 - 0x1000, 0xffff800000000000, 0xfffffffffffff000, 1<<31 - 0x1000, 1 << 31 &^ 0xfff, 1<<32 - 0x1000, 1 << 32} {
		page(va, gpaScrap+uint64(i)<<12, user)
	}
	page(0x50000000, guestMemory-0x1000, user) // the end of RAM, then what is no RAM
	page(0x50001000, guestMemory, user)
	page(0x50003000, 1<<40-0x1000, user)
	h.edges = append(h.edges, bigPage, bigPage+guestMemory, bigPage+2<<20, sandboxBase, sandboxBase+0x2000, seqReadOnly+0x1000, codeBase, codeBase+seqCodeSize,
		seqAlias, seqDevice)
	// Pages of 2 MiB at bigPage and of 1 GiB at hugePage1, of which RAM is the first.
	pd := next
	h.put(t, gpaUserPDPT+bigPage>>30*8, pd|user)
	for i := uint64(0); i < 8; i++ {
		h.put(t, pd+8*i, i<<21|user|1<<7)
	}
	h.put(t, gpaUserPDPT+hugePage1>>30*8, user|1<<7)
	h.edges = append(h.edges, hugePage1, hugePage1+guestMemory, hugePage1+1<<30)
	h.image = make([]byte, gpaCode)
	if err := s.mem.Read(0, h.image); err != nil {
		t.Fatal(err)
	}
	h.tables = make([]byte, gpaScrap-gpaEdges)
	if err := s.mem.Read(gpaEdges, h.tables); err != nil {
		t.Fatal(err)
	}
	go h.hurry()
	return h
}

// restore undoes what a case did to the tables.
func (h *hostile) restore() error {
	return firstError(h.seqSoft.put(0, h.image), h.seqSoft.put(gpaEdges, h.tables))
}

func (h *hostile) put(t *testing.T, gpa, v uint64) {
	if err := h.mem.Write(gpa, binary.LittleEndian.AppendUint64(nil, v)); err != nil {
		t.Fatal(err)
	}
}

// hurry ends cases that take long.
func (h *hostile) hurry() {
	for {
		select {
		case <-h.stop:
			return
		case <-time.After(500 * time.Microsecond):
		}
		h.mu.Lock()
		select {
		case <-h.stop:
		default:
			if b := h.began.Load(); b != 0 && time.Since(time.Unix(0, b)) > time.Millisecond {
				h.cpu.Kick()
			}
		}
		h.mu.Unlock()
	}
}

// goesOn has the case go on somewhere in its code, a few times.
func (h *hostile) goesOn(uint8) bool {
	if h.left--; h.left < 0 {
		h.err = firstError(h.err, h.mem.Write(gpaSeqOver, []byte{1}))
		return false
	}
	for i := range h.cpu.R[:16] {
		if i != x86.RSP && h.rng.IntN(3) == 0 {
			h.cpu.R[i] = h.address(h.rng)
		}
	}
	h.err = firstError(h.err, h.mem.Write(stackTop-40, binary.LittleEndian.AppendUint64(nil, codeBase+uint64(h.rng.IntN(seqCodeSize)))))
	return true
}

// address is near an edge, or anything.
func (h *hostile) address(r *rand.Rand) uint64 {
	switch r.IntN(8) {
	case 0:
		return integer(r)
	case 1:
		return r.Uint64()
	}
	return pickOf(r, h.edges) + uint64(r.IntN(128)) - 64
}

func (h *hostile) run(r *rand.Rand) error {
	h.rng, h.left, h.err = r, r.IntN(24), nil
	if err := firstError(h.restore(), h.mem.Write(gpaSeqOver, []byte{0})); err != nil {
		return err
	}
	code, err := h.mem.Slice(gpaCode, seqCodeSize)
	if err != nil {
		return err
	}
	mode := decode.Mode64
	if r.IntN(4) == 0 {
		mode = decode.Mode32
	}
	h.fill(r, code, mode)
	h.mem.MarkWritten(gpaCode, seqCodeSize)
	s := randomState(r)
	for i := range s.GPR {
		s.GPR[i] = h.address(r)
	}
	if r.IntN(2) == 0 {
		s.FSBase, s.GSBase = h.address(r), h.address(r)
	}
	for _, base := range []*uint64{&s.FSBase, &s.GSBase} {
		if *base = uint64(int64(*base<<16) >> 16); mode != decode.Mode64 {
			*base = 0
		}
	}
	st := startState(codeBase+uint64(r.IntN(seqCodeSize)), mode, &s)
	st.IDT.Limit = (seqVector+1)*16 - 1
	if h.level == x86.LevelV3 {
		st.XCR0 = 7
	}
	if mode == decode.Mode64 && r.IntN(3) == 0 { // CPL 0
		st.Seg[x86.CS].Selector, st.Seg[x86.SS].Selector = 0x10, 0x18
		for _, n := range []int{x86.CS, x86.SS} {
			st.Seg[n].Attr &^= 3 << 5
		}
	}
	if err := h.cpu.SetState(st); err != nil {
		return err
	}
	h.start = h.cpu.Instructions
	h.began.Store(time.Now().UnixNano())
	h.cpu.Run()
	h.began.Store(0)
	return h.err
}

// fill makes code: instructions on what the registers say, with displacements that
// wrap around, or bytes of any value.
func (h *hostile) fill(r *rand.Rand, code []byte, mode decode.Mode) {
	g := &Generator{rng: r, rows: h.rows}
	for pos := 0; pos < len(code); {
		if r.IntN(12) == 0 {
			for n := r.IntN(24); n > 0 && pos < len(code); n-- {
				code[pos] = byte(r.Uint32())
				pos++
			}
			continue
		}
		c := Case{Mode: mode}
		b := builder{g: g, c: &c, at: 1, row: &g.rows[r.IntN(len(g.rows))]}
		b.makePrefixes()
		b.makeOpcode()
		if b.row.Mod != 0 {
			b.makeModRM(2 << mode)
		}
		if len(b.disp) == 4 && r.IntN(2) == 0 {
			binary.LittleEndian.PutUint32(b.disp, pickOf(r, []uint32{0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000, 0x7ffff000, 0x80001000, uint32(h.address(r))}))
		}
		b.makeImmediates()
		b.join()
		pos += copy(code[pos:], b.bytes)
	}
}
