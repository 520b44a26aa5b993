package jit

// grouped is an access of a group that has been checked.
func (t *translation) grouped(r *ref) rm {
	if g := r.group; t.held != g {
		t.load(8, tmp1, t.host(g))
		t.held = g
	}
	return at(tmp1, int32(r.off))
}

// host is where the host address of a group's lo is kept.
func (t *translation) host(g uint8) rm {
	return frame(offHosts + 8*uintptr(t.groups[g-1].host))
}

// check is access for a whole group, whose lo is at the linear address in tmp1; the access at hand
// is of size bytes. tmp1 becomes the host address of lo.
func (t *translation) check(r *ref, size uint8, write bool) {
	g := &t.groups[r.group-1]
	t.clobber()
	s := split{
		off: int32(r.off), tag: t.tag(g.write), own: t.tag(write), size: size,
		miss: t.exit(Exit{Kind: Miss, Size: size, Write: write, Off: t.pos, Count: t.count}),
		exit: t.exit(Exit{Kind: Split, Off: t.pos, Target: int64(t.pos)}), count: t.count,
		retry: t.start, fp: t.fp, x87: t.x87, flags: t.flags,
	}
	if g.align > 1 {
		t.testLow(g.align)
		s.crooked = t.jcc(ccNZ)
	}
	t.find(s.tag)
	t.aluImm(aluCmp, 8, regRM(tmp1), pageSize-int32(g.hi-g.lo))
	s.from = t.jcc(ccA)
	t.piece(&t.c.pieces.host[t.index])
	t.store(8, tmp1, t.host(r.group))
	t.splits = append(t.splits, s)
	t.held = r.group
}

// split is code out of line for a group's check that failed.
type split struct {
	from       uint32 // the displacement of the jump from where the TLB does not grant it
	crooked    uint32 // likewise where lo is not aligned
	tag, own   int32  // of the group, of the access itself
	off        int32  // of that from lo
	size       uint8
	count      uint8
	miss, exit uint32
	retry      uint32
	fp         uint8 // as stub.fp
	x87        bool
	flags      recipe
}

// emitSplit leaves by a Split if the first access by itself is granted, else by a Miss.
// tmp1 is lo less the tag.
func (t *translation) emitSplit(s *split) {
	t.bindHot(s.from)
	t.alu(aluAdd, 8, tmp1, rm{mem: true, reg: state, index: tmp2, disp: s.tag})
	if s.off != 0 {
		t.lea(t.word, tmp1, at(tmp1, s.off))
	}
	t.find(s.own)
	t.aluImm(aluCmp, 8, regRM(tmp1), pageSize-int32(s.size))
	from := t.jcc(ccA)
	miss := stub{exit: s.miss, flags: s.flags, what: stubMiss, tag: s.own, retry: s.retry, fp: s.fp, x87: s.x87}
	if s.crooked != 0 {
		t.bindHot(s.crooked)
	}
	if !s.flags.allSaved() {
		t.storeFlags(&s.flags)
	}
	if s.count != 0 {
		t.aluImm(aluSub, 8, regRM(budget), int32(s.count))
	}
	at := t.jmp()
	t.bind(at)
	x := &t.c.exits[s.exit]
	x.patch, x.stub = t.base+at, uint32(t.entry())
	t.leave(s.exit)
	t.bind(from)
	t.emitStub(&miss)
}
