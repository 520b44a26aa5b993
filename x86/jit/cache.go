package jit

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/cpu"

	"berth/x86/decode"
)

// Cache holds a vCPU's translated code. Only the vCPU's thread uses it.
type Cache struct {
	layout Layout
	bmi2   bool // the host has it
	mem    mapping
	used   uint32 // bytes of what runs often, from the start
	fixed  uint32 // of them, what stays at Clear
	rare   uint32 // where the next stubs go: they lie in the second half, out of the way

	exits   []Exit
	stepped []decode.Inst // of Step exits
	pieces  pieces
	buf     buf
	rareBuf buf

	ready, readyRare uint32 // up to there the host has given memory: see populate

	// Of the block being translated.
	insts  []inst
	stubs  []stub
	lazies []lazy
	sides  []side
	splits []split
	groups []group

	lookup, toRaw Entry // shared code
	loadX87       Entry
	loadFP        [fpYMM + 1]Entry // by level
	strings       [3][4]stringCode // by TLB and log2 of the elements' size
}

// perExit is how many bytes of code have an exit among them: with fewer, exits are moved
// as they become more.
const perExit = 64

// inBlock is more than one block takes of the cache.
const inBlock = 64 << 10

// New returns a cache of size bytes, a multiple of the host's page, for the vCPU
// whose state lies as layout says.
func New(size int, layout Layout) (*Cache, error) {
	mem, err := mapTwice(size)
	if err != nil {
		return nil, fmt.Errorf("jit: %w", err)
	}
	c := &Cache{layout: layout, bmi2: cpu.X86.HasBMI2, mem: mem, rare: uint32(size / 2)}
	c.insts = make([]inst, 0, maxInstructions)
	c.exits = make([]Exit, 0, size/perExit) // of which the host gives what is used
	c.recordPieces()
	c.emitShared()
	c.fixed = c.used
	return c, nil
}

// Close unmaps the code and lets go of the exits, whoever still holds the cache.
func (c *Cache) Close() error {
	c.exits, c.stepped, c.insts = nil, nil, nil
	return c.mem.close()
}

// Unit is a translated block.
type Unit struct {
	Entry Entry
	End   uint16 // past the last byte it was made from
	Count int    // instructions
	dead  uint32 // its Dead exit
}

// Full reports that there may be no room for another block.
func (c *Cache) Full() bool {
	return c.half()-int(c.used) < inBlock || len(c.mem.rw)-int(c.rare) < inBlock
}

func (c *Cache) half() int { return len(c.mem.rw) / 2 }

// Used is the bytes of code held.
func (c *Cache) Used() int { return int(c.used) + int(c.rare) - c.half() }

// Clear forgets all code. None of it runs.
func (c *Cache) Clear() {
	c.used, c.rare = c.fixed, uint32(c.half())
	c.exits = c.exits[:0]
	clear(c.stepped)
	c.stepped = c.stepped[:0]
}

// Release is Clear that gives the memory back to the host.
func (c *Cache) Release() error {
	c.Clear()
	c.exits, c.stepped = make([]Exit, 0, len(c.mem.rw)/perExit), nil
	c.ready, c.readyRare = 0, 0
	const page = 64 << 10 // no host has larger ones
	return c.mem.release((int(c.fixed) + page - 1) &^ (page - 1))
}

// Link leads the jump of an Edge exit, by its number, to a unit.
func (c *Cache) Link(x uint32, to Entry) { c.patch(c.exits[x].patch, uint32(to)) }

// LinkFar leads that of a Far exit to a unit, for as long as the exit's page is where R says and
// Tags[half] is tag. It reports whether it has not led there before.
func (c *Cache) LinkFar(x uint32, to Entry, page, tag uint64, half int) bool {
	e := &c.exits[x]
	c.patch(e.patch, uint32(to))
	c.mem.rw[e.patchTag] = byte(offTags) + 8*byte(half)
	binary.LittleEndian.PutUint64(c.mem.rw[e.where:], page)
	binary.LittleEndian.PutUint64(c.mem.rw[e.where+8:], tag)
	fresh := e.to != to
	e.to = to
	return fresh
}

// IsFar reports that an exit is to be linked by LinkFar.
func (c *Cache) IsFar(x uint32) bool { return c.exits[x].Kind == Far }

// noPage is the start of no page.
const noPage = 1

// Unlink leads the jump of either back to where it returns.
func (c *Cache) Unlink(x uint32) {
	e := &c.exits[x]
	if e.Kind == Far {
		binary.LittleEndian.PutUint64(c.mem.rw[e.where:], noPage)
		e.to = 0
		return
	}
	c.patch(e.patch, e.stub)
}

// Kill makes whoever enters the unit return with a Dead exit.
func (c *Cache) Kill(u *Unit) {
	c.mem.rw[u.Entry] = 0xe9 // jmp
	c.patch(uint32(u.Entry)+1, c.exits[u.dead].stub)
}

// patch has the jump whose displacement is at pos lead to target.
func (c *Cache) patch(pos, target uint32) {
	binary.LittleEndian.PutUint32(c.mem.rw[pos:], target-pos-4)
}

// Inst returns the instruction that a Step exit is to run, nil if its bytes are none.
func (c *Cache) Inst(x *Exit) *decode.Inst {
	if x.inst == 0 {
		return nil
	}
	return &c.stepped[x.inst-1]
}

// add adds an exit and returns its number.
func (c *Cache) add(x Exit) uint32 {
	c.exits = append(c.exits, x)
	return uint32(len(c.exits) - 1)
}

// step adds a Step exit for an instruction.
func (c *Cache) step(in *decode.Inst, pos uint16, count uint8) uint32 {
	c.stepped = append(c.stepped, *in)
	return c.add(Exit{Kind: Step, Off: pos, Count: count, inst: int32(len(c.stepped))})
}

// populated has what used, a place in the cache, is at mapped, and some more; up to ready it was before.
func (c *Cache) populated(used uint32, ready *uint32) {
	const piece = 256 << 10
	if used >= *ready {
		from := used &^ (piece - 1)
		c.mem.populate(from, piece)
		*ready = from + piece
	}
}

// begin starts code at the end of the cache, at a line of the host's caches.
func (c *Cache) begin() *buf {
	c.used = (c.used + 15) &^ 15
	c.populated(c.used, &c.ready)
	c.buf = buf{b: c.mem.rw[c.used:], base: c.used}
	return &c.buf
}

func (c *Cache) end() { c.used += c.buf.n }

// beginRare and endRare likewise for stubs.
func (c *Cache) beginRare() *buf {
	c.rare = (c.rare + 7) &^ 7
	c.populated(c.rare, &c.readyRare)
	c.rareBuf = buf{b: c.mem.rw[c.rare:], base: c.rare}
	return &c.rareBuf
}

func (c *Cache) endRare() { c.rare += c.rareBuf.n }

// frame is a field of Frame as an operand.
func frame(off uintptr) rm { return at(state, int32(off)) }

// reg is a guest register's place in memory.
func (c *Cache) reg(n uint8) rm { return at(state, c.layout.R+8*int32(n)) }
