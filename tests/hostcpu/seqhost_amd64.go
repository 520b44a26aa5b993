package hostcpu

import (
	_ "embed"
	"encoding/binary"
	"fmt"

	"berth/x86"
)

// seqRunner is runner.asm, assembled with SEQUENCES.
//
//go:embed sequences.elf
var seqRunner []byte

// The same for it.
const (
	seqFileMemory = seqReadOnly - sandboxBase + 0x1000 + seqCodeSize
	seqCasesOff   = seqFileMemory + 0x4000
	seqCaseSize   = 0x5000
	seqCaseFixes  = 0x380
	seqResultsOff = seqCasesOff + seqBatch*seqCaseSize
	seqResultSize = 0x7000
	seqFileSize   = seqResultsOff + seqBatch*seqResultSize
)

// seqHost runs sequences on the host's processor.
type seqHost struct{ *Host }

func newSeqHost() (seqHost, error) {
	h, err := startHost(seqRunner, seqFileSize, seqFileMemory)
	return seqHost{h}, err
}

// RunSequences is seqEngine's.
func (h seqHost) RunSequences(image []byte, all []*Sequence, results []SeqResult) error {
	le := binary.LittleEndian
	var which []int
	for i, q := range all {
		if q.Soft || results[i].Hung {
			continue
		}
		p := h.mem[seqCasesOff+len(which)*seqCaseSize:]
		at, ok := q.Lay(p[0x1000 : 0x1000+seqCodeSize])
		if !ok {
			continue
		}
		putCase(p, q.State.RIP, q.Mode, &q.State)
		le.PutUint64(p[seqCaseFixes:], uint64(len(q.Fixes)))
		for n, l := range q.Fixes {
			le.PutUint64(p[seqCaseFixes+8+8*n:], q.address(at, l))
		}
		which = append(which, i)
	}
	if len(which) == 0 {
		return nil
	}
	copy(h.mem[seqFileMemory+0x1000:], image[:sandboxSize])
	if i, err := h.batch(len(which)); err != nil {
		return fmt.Errorf("hostcpu: the runner hangs or died in\n%s: %w", all[which[i]].Text(), err)
	}
	for n, i := range which {
		h.result(h.mem[seqResultsOff+n*seqResultSize:], all[i], &results[i])
	}
	return nil
}

func (h seqHost) result(p []byte, q *Sequence, r *SeqResult) {
	le := binary.LittleEndian
	*r = SeqResult{}
	getResult(p, q.Mode, &r.Result)
	for f := p[seqCaseFixes+8:]; len(r.Faults) < int(le.Uint64(p[seqCaseFixes:])); f = f[32:] {
		fault := seqFault{Vector: uint8(le.Uint64(f)), Error: le.Uint64(f[8:]), RIP: le.Uint64(f[16:])}
		if fault.Vector == x86.PF {
			fault.CR2 = le.Uint64(f[24:])
		}
		r.Faults = append(r.Faults, fault)
	}
	copy(r.Memory[:], p[0x1000:])
}
