package broker

import (
	"time"

	"github.com/gnomon-vm/gnomon"
)

const (
	// easeLasts is how many samples may come after a forecast, without another
	// one, until what it says is enough counts no more.
	easeLasts = 3

	// Forecasts are doubted when demand exceeds what they said was enough too
	// often: doubtPart is what an interval counts of the share in which it did,
	// mostDoubt the share from which on they are not believed for doubtTime.
	doubtPart = 0.1
	mostDoubt = 0.5
	doubtTime = time.Minute

	// reliefPart is by how much, at least, a limit rises above the demand that
	// exceeded it, and reliefStep above itself: demand that a limit held down is
	// a lower bound.
	reliefPart, reliefStep = 50, 20

	// leastEase is the share of an allocation below which it does not follow a
	// forecast down.
	leastEase = 256
)

// ease is what a live forecast says is enough for a VM, below or above what the
// standard path alone would hold.
type ease struct {
	level   int64 // 0 for nothing
	samples int   // since it was told

	short  bool      // demand exceeded it in this interval
	doubt  float64   // of late, the share of intervals in which it did
	denied time.Time // until when none is believed
}

// firm has the base stand until a time, whatever forecasts say.
func (l *line) firm(until time.Time) {
	l.tense()
	if until.After(l.ease.denied) {
		l.ease.denied = until
	}
}

// tense ends an ease: the standard path holds the base again.
func (l *line) tense() { l.eased, l.ease.level = 0, 0 }

// easeTo takes in what a proposal says is enough.
func (b *Broker) easeTo(l *line, w gnomon.Want) {
	if !l.m.policy.Release || w.Enough <= 0 || l.ease.denied.After(b.now) || !l.current(b.now) {
		l.tense()
		return
	}
	level := l.bound(w.Enough)
	if l.r == gnomon.Memory {
		level = max(level, l.bound(l.last.Demand))
	}
	l.ease.level, l.ease.samples = level, 0
	l.eased = max(0, l.base-l.lent-level)
}

// sampledEased is what becomes of a sample while a forecast is believed. The
// base goes on as without it. What is demanded is the least of what is enough
// until the next forecast; demand that exceeds the allocation is served at once,
// and the forecast doubted.
func (b *Broker) sampledEased(l *line, s gnomon.Sample, base int64) {
	need := l.last.Demand
	l.ease.level = max(l.ease.level, l.bound(need))
	if need > l.allocated() {
		l.ease.short = true
		l.ease.level = max(l.ease.level, l.bound(max(need+need/reliefPart, l.allocated()+l.allocated()/reliefStep)))
		was, steady := l.base, l.steady
		if b.demand(l, need, base, "demand "+l.format(need)); base <= was {
			l.steady = steady
		}
	} else if base != l.base {
		if base > l.base {
			l.steady = b.now
		}
		l.rebase(base, b.now)
	}
	l.eased = max(0, l.base-l.lent-l.ease.level)
	if s.Urgent {
		return
	}
	l.ease.doubt *= 1 - doubtPart
	if l.ease.short {
		l.ease.doubt += doubtPart
	}
	l.ease.short = false
	l.ease.samples++
	if l.ease.doubt > mostDoubt {
		l.ease.doubt = 0
		l.firm(b.now.Add(doubtTime))
	} else if l.ease.samples >= easeLasts {
		l.tense()
	}
}
