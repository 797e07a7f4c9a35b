package broker

import (
	"fmt"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// sampled takes in what a VM used.
func (b *Broker) sampled(s gnomon.Sample) {
	m, ok := b.find(s.VM)
	if !ok {
		return
	}
	if s.At.IsZero() || s.At.After(b.now) {
		s.At = b.now
	}
	if !s.Urgent { // which comes between two of them, in no order with either
		if !s.At.After(m.sampled) {
			return
		}
		m.sampled = s.At
		m.interval = [2]time.Duration{max(0, min(s.Interval, maxAhead)), m.interval[0]}
	}
	for r := range gnomon.AllResources() {
		if !s.Known.Has(r) {
			continue
		}
		b.open(m, r, s.Allocation[r])
		if l := m.lines[r]; l != nil {
			b.sampledLine(l, s)
		}
	}
}

func (b *Broker) sampledLine(l *line, s gnomon.Sample) {
	l.last.Usage = amount(s.Usage[l.r])
	l.last.Demand = max(l.last.Usage, amount(s.Demand[l.r]))
	l.last.Starved = max(0, s.Starved[l.r])
	l.last.SampledAt = s.At
	l.seen, l.fresh = true, true
	if !s.Urgent || l.r == gnomon.Memory {
		l.peaks.add(s.At, l.last.Demand, l.hold())
	}

	observed := s.Allocation[l.r]
	if observed < 0 {
		observed = l.bounds.Ceiling
	}
	if !b.reconcile(l, s.At, amount(observed)) {
		return
	}
	base := l.advance(s, b.now)
	if l.ease.level > 0 {
		b.sampledEased(l, s, base)
		return
	}
	switch {
	case base > l.base || l.lent > 0 && l.halfPadded(l.last.Demand) > l.standard():
		b.demand(l, l.last.Demand, max(base, l.base), "demand "+l.format(l.last.Demand))
	case base < l.base:
		l.rebase(base, b.now)
	}
}

func amount(a int64) int64 { return max(0, min(a, ledger.MaxAmount)) }

// nextBase is the standard path: what a base that has not grown since it was
// steady becomes with the last sample. It depends on demand, bounds and policy
// only, never on a proposal.
//
// It grows when demand has used up half its headroom, to demand plus headroom.
// When the VM was starved, demand is only a lower bound: the step is doubled.
// It shrinks to the highest demand of the last Hold plus headroom, if it has
// not grown in that time and at least a tenth is to gain.
func (l *line) nextBase(base int64, steady time.Time, interval time.Duration, now time.Time) int64 {
	want := l.padded(l.last.Demand)
	starved := l.last.Starved > interval/10 && l.last.Demand >= base-base/10
	if starved || l.halfPadded(l.last.Demand) > base {
		step := max(0, want-base)
		if starved {
			step *= 2
		}
		return l.bound(base + step)
	}
	hold := l.hold()
	if now.Sub(steady) < hold {
		return base
	}
	target := l.bound(l.padded(max(l.last.Demand, l.peaks.max(now.Add(-hold)))))
	if target < base-base/10 {
		return target
	}
	return base
}

// demand raises the base for what is needed now, and notes what of the need
// forecasts had ready and what of it they had not. The headroom that the base
// has above the need is neither hit nor miss.
func (b *Broker) demand(l *line, need, base int64, cause string) {
	need = min(need, base)
	own, ready := l.allocated()-l.book.Prepared(), l.allocated()+l.book.Reserved()
	hit := max(0, min(need, ready)-own)
	miss := max(0, need-max(ready, l.standard()))
	l.book.Use(base-own, b.now)
	l.base, l.lent, l.eased, l.cause, l.steady = base, 0, 0, cause, b.now

	d := gnomon.Decision{From: l.allocated(), To: base}
	if hit > 0 {
		l.counts.Hits++
		l.counts.HitAmount += hit
		d.Kind, d.Amount = gnomon.DecideHit, hit
		d.Reason = fmt.Sprintf("%s: %s of it had been made ready", cause, l.format(hit))
		if res := l.book.Reservation(); res != nil {
			d.Reservation = res.ID
		}
		b.decide(l, d)
	}
	if miss > 0 {
		l.counts.Misses++
		l.counts.MissAmount += miss
		d.Kind, d.Amount, d.Reservation = gnomon.DecideMiss, miss, 0
		d.Reason = fmt.Sprintf("%s: %s of it had not been made ready", cause, l.format(miss))
		b.decide(l, d)
	}
}

// rebase lowers the base, or follows a changed bound. What a live request
// keeps allocated above it is prepared from now on.
func (l *line) rebase(base int64, now time.Time) {
	standard := max(l.standard(), l.bounds.Floor)
	l.base = base
	l.lent = max(0, min(l.lent, base-standard))
	l.eased = max(0, min(l.eased, base-l.lent-standard))
	l.book.Use(base-l.allocated()+l.book.Prepared(), now)
	l.keep(now)
}

// demanded serves an explicit request for resources now.
func (b *Broker) demanded(d gnomon.Demanded) {
	m, ok := b.find(d.VM)
	if !ok {
		m = new(machine) // which has no resources to give
	}
	answer := gnomon.Answer{VM: d.VM, Session: m.session, Seq: d.Seq}
	before := [gnomon.NumResources]int64{}
	moving := gnomon.ResourceSet(0)
	m.each(func(l *line) {
		before[l.r] = l.allocated()
		if l.flight != nil {
			moving = moving.With(l.r)
		}
		if d.Levels[l.r] <= 0 {
			return
		}
		level := l.bound(amount(d.Levels[l.r]))
		if level > l.standard() {
			b.demand(l, level, max(level, l.base), "a request for "+l.format(level))
			l.firm(b.now.Add(l.hold()))
		}
		l.steady = b.now
		l.onset.base, l.onset.steady = max(l.onset.base, level), b.now
	})
	for r := range gnomon.AllResources() {
		if level := d.Levels[r]; level != 0 {
			b.settle(r)
			answer.Grants = append(answer.Grants, m.outcome(r, level, before[r], moving.Has(r)))
		}
	}
	b.out.Answers = append(b.out.Answers, answer)
}

// outcome tells what became of an explicit request; moving is whether a change
// was under way when it came.
func (m *machine) outcome(r gnomon.Resource, level, before int64, moving bool) gnomon.Grant {
	g := gnomon.Grant{Resource: r, Asked: level, Verdict: gnomon.Denied}
	l := m.lines[r]
	if l == nil {
		g.Reason = "this resource of the VM is not limited"
		return g
	}
	if level < 0 {
		g.Reason = "a level must be above 0"
		return g
	}
	g.Got = min(level, l.allocated())
	var why []string
	if level > l.bounds.Ceiling {
		why = append(why, "the ceiling is "+l.format(l.bounds.Ceiling))
	}
	switch {
	case l.allocated() >= l.standard():
	case moving:
		why = append(why, "an earlier change is under way; the rest follows when it is done")
	default:
		why = append(why, "no more is free now; the rest follows as others give it back")
	}
	g.Reason = strings.Join(why, "; ")
	switch {
	case g.Got == level:
		g.Verdict, g.Reason = gnomon.Granted, "allocated"
	case g.Got > before:
		g.Verdict = gnomon.Partial
	}
	return g
}
