package throttle

import (
	"errors"
	"fmt"
)

// maxRate bounds all rates, as with QEMU: beyond it a double no longer counts one by one.
const maxRate = 1_000_000_000_000_000

// Limit bounds one kind of work. The zero Limit bounds nothing.
type Limit struct {
	Rate     int64 // units a second in the long run; 0: not limited
	Burst    int64 // units a second at most while a burst lasts; 0: a tenth of Rate may come at once
	BurstFor int64 // seconds for which Burst can be kept up; 0: 1
}

// Limits is what a disk may be asked for.
type Limits struct {
	Bytes, Operations Pair
	OperationSize     int64 // bytes above which a request counts as several operations; 0: every request is one
}

// Pair limits reads and writes together, or each alone. A total goes with no
// limit of the same kind for reads or writes, as with QEMU.
type Pair struct{ Total, Read, Write Limit }

func (p Pair) all() [3]Limit { return [3]Limit{p.Total, p.Read, p.Write} }

func (p Pair) any() bool { return p.Total.Rate > 0 || p.Read.Rate > 0 || p.Write.Rate > 0 }

// Any reports whether anything is limited.
func (l Limits) Any() bool { return l.Bytes.any() || l.Operations.any() }

// Check refuses what QEMU refuses, in its words.
func (l Limits) Check() error {
	for _, p := range []Pair{l.Bytes, l.Operations} {
		if p.Total.Rate > 0 && (p.Read.Rate > 0 || p.Write.Rate > 0) || p.Total.Burst > 0 && (p.Read.Burst > 0 || p.Write.Burst > 0) {
			return errors.New("bps/iops/max total values and read/write values cannot be used at the same time")
		}
	}
	if l.OperationSize < 0 || l.OperationSize > maxRate {
		return fmt.Errorf("iops size must be within [0, %d]", int64(maxRate))
	}
	if l.OperationSize > 0 && !l.Operations.any() {
		return errors.New("iops size requires an iops value to be set")
	}
	for _, p := range []Pair{l.Bytes, l.Operations} {
		for _, x := range p.all() {
			if err := x.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x Limit) check() error {
	switch {
	case x.Rate < 0 || x.Rate > maxRate || x.Burst < 0 || x.Burst > maxRate:
		return fmt.Errorf("bps/iops/max values must be within [0, %d]", int64(maxRate))
	case x.BurstFor < 0:
		return errors.New("the burst length cannot be negative")
	case x.BurstFor > 1 && x.Burst == 0:
		return errors.New("burst length set without burst rate")
	case x.Burst > 0 && x.BurstFor > maxRate/x.Burst:
		return errors.New("burst length too high for this burst rate")
	case x.Burst > 0 && x.Rate == 0:
		return errors.New("bps_max/iops_max require corresponding bps/iops values")
	case x.Burst > 0 && x.Burst < x.Rate:
		return errors.New("bps_max/iops_max cannot be lower than bps/iops")
	}
	return nil
}
