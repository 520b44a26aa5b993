package throttle

import "time"

// bucket is a leaky bucket: work fills it, time empties it at the limit's rate,
// and while it is too full nothing is let through. A limit whose burst may last
// longer than a second has a second level, which keeps the burst at its own rate.
//
// The arithmetic is QEMU's (docs/throttle.txt there), so that the same numbers
// give the same disk.
type bucket struct {
	rate, size           float64 // units a second; units
	level                float64
	burstRate, burstSize float64 // 0: no second level
	burstLevel           float64
}

func newBucket(x Limit) bucket {
	b := bucket{rate: float64(x.Rate), size: float64(x.Rate) / 10}
	if x.Burst > 0 {
		b.size = float64(x.Burst) * float64(max(x.BurstFor, 1))
		if x.BurstFor > 1 {
			b.burstRate, b.burstSize = float64(x.Burst), float64(x.Burst)/10
		}
	}
	return b
}

// leak lets d pass.
func (b *bucket) leak(d time.Duration) {
	b.level = max(b.level-b.rate*d.Seconds(), 0)
	b.burstLevel = max(b.burstLevel-b.burstRate*d.Seconds(), 0)
}

// wait is how long the next request has to wait, however large it is.
func (b *bucket) wait() time.Duration {
	if b.rate == 0 {
		return 0
	}
	if extra := b.level - b.size; extra > 0 {
		return seconds(extra / b.rate)
	}
	if b.burstRate == 0 {
		return 0
	}
	if extra := b.burstLevel - b.burstSize; extra > 0 {
		return seconds(extra / b.burstRate)
	}
	return 0
}

// seconds rounds up to a nanosecond, so that a wait that is over has emptied the
// bucket far enough, and is never more than an hour, after which one looks again.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, time.Hour.Seconds())*1e9) + 1
}

func (b *bucket) add(units float64) {
	if b.rate == 0 {
		return
	}
	b.level += units
	if b.burstRate > 0 {
		b.burstLevel += units
	}
}

// buckets are those for bytes and for operations.
type buckets struct{ bytes, operations bucket }

func (b *buckets) leak(d time.Duration) {
	b.bytes.leak(d)
	b.operations.leak(d)
}

func (b *buckets) wait() time.Duration { return max(b.bytes.wait(), b.operations.wait()) }

func (b *buckets) add(bytes, operations float64) {
	b.bytes.add(bytes)
	b.operations.add(operations)
}

// limit reports whether they limit anything.
func (b *buckets) limit() bool { return b.bytes.rate > 0 || b.operations.rate > 0 }
