package broker

import (
	"time"

	"github.com/gnomon-vm/gnomon"
)

// onset is what urgent samples have raised the base from, until a regular one
// tells whether what they saw has lasted. Theirs are moments: a few milliseconds
// at its limit have a VM look as if it needed all there is.
type onset struct {
	at     time.Time // of the last that raised the base; zero for none
	base   int64     // what regular samples alone would hold
	steady time.Time // since when that has not grown
}

// advance is what the base becomes with the last sample. An urgent one only
// raises it. That stands until a regular one shows that demand since then cannot
// have been more than the base serves without it, or has seen a whole interval
// that began later. Memory is as slow to come back as to go, and told of by its
// guest once a second: of it, urgent samples count as regular ones.
func (l *line) advance(s gnomon.Sample, now time.Time) int64 {
	o := &l.onset
	if s.Urgent && l.r != gnomon.Memory {
		base := max(l.base, l.nextBase(l.base, l.steady, s.Interval, now))
		if base > l.base {
			if o.at.IsZero() {
				o.base, o.steady = l.base, l.steady
			}
			o.at = s.At
		}
		return base
	}
	if o.at.IsZero() {
		return l.nextBase(l.base, l.steady, s.Interval, now)
	}
	base := l.nextBase(l.bound(o.base), o.steady, s.Interval, now)
	if base > o.base {
		o.steady = now
	}
	o.base = base
	if l.lasts(s) {
		return max(base, l.base)
	}
	l.steady = o.steady
	*o = onset{}
	return base
}

// lasts reports whether, for all that a regular sample tells, what began with
// the onset still goes on: all that it saw of demand may have come since.
func (l *line) lasts(s gnomon.Sample) bool {
	since := s.At.Sub(l.onset.at)
	if since <= 0 || since >= s.Interval {
		return since <= 0
	}
	return l.halfPadded(mulDiv(l.last.Demand, int64(s.Interval), int64(since))) > l.onset.base
}
