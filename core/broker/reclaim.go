package broker

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gnomon-vm/gnomon"
)

// donor is a line that can give, the level it is to be lowered to, and what it
// could give beyond that.
type donor struct {
	*line
	to, spare int64
}

// reclaim lowers allocations of VMs that can spare it, for demand that nothing
// free could serve. What comes back is given out when it was seen to be free.
//
// First goes what stands above the donors' standards: what forecasts had
// prepared, and what was about to shrink anyway. Then what demand did not need
// of late. For a floor, at last, whatever is above the donors' floors.
func (s *scene) reclaim() {
	need, floors, cause := s.shortage()
	if need <= 0 {
		return
	}
	var donors []donor
	waiting := int64(0) // above the standard, but in flight now
	for _, l := range s.lines {
		if target, flying := l.book.Target(); flying {
			waiting += max(0, target-l.standard())
		} else if l.allocated() >= l.standard() && l.mayMove(false, s.b.now) {
			donors = append(donors, donor{l, l.allocated(), 0})
		}
	}
	need = plan(donors, need, func(l *line) int64 { return max(l.standard(), l.safe(s.b.now)) })
	need = plan(donors, need-waiting, func(l *line) int64 { return max(l.tight(s.b.now), l.safe(s.b.now)) })
	plan(donors, min(need, floors), func(l *line) int64 { return l.safe(s.b.now) })
	for _, d := range donors {
		s.take(d, "needed by "+cause)
	}
}

// shortage is what demand lacks and nothing free, reserved or in flight will
// provide, what of it is missing to floors, and whose demand it is.
func (s *scene) shortage() (need, floors int64, cause string) {
	total := s.b.book.Total(s.r)
	need = -total.Free - total.Reserved
	cause = "the host, which has less than it promised"
	for _, l := range s.lines {
		level := l.allocated()
		if target, flying := l.book.Target(); flying {
			need -= level - target
			level = target
		}
		if lack := l.lack(level); lack > 0 {
			need += lack
			floors += max(0, l.bounds.Floor-level)
			cause = l.m.name()
		}
	}
	if floors > 0 { // what comes back pays the host's debt first
		floors += max(0, -total.Free)
	}
	return need, floors, cause
}

// plan lowers the donors' levels, down to what each keeps, until need is met:
// those of the lowest priority first, of them those that can give most. It
// returns what of need is not met.
func plan(donors []donor, need int64, keep func(*line) int64) int64 {
	if need <= 0 {
		return 0
	}
	for i := range donors {
		donors[i].spare = donors[i].to - keep(donors[i].line)
	}
	slices.SortStableFunc(donors, func(a, b donor) int {
		return cmp.Or(cmp.Compare(a.priority(), b.priority()), cmp.Compare(b.spare, a.spare))
	})
	for i := range donors {
		part := max(0, min(need, donors[i].spare))
		donors[i].to -= part
		need -= part
	}
	return need
}

// take lowers a donor as planned, and with it by what would shrink anyway.
func (s *scene) take(d donor, reason string) {
	prepared := d.book.Prepared()
	if d.to < d.allocated() && d.fresh {
		d.to = min(d.to, d.stepTowards(d.goal(), s.b.now))
	}
	freed := s.lower(d.line, d.to, gnomon.DecideReclaim, reason)
	if freed == 0 {
		return
	}
	if d.to < d.standard() { // given away for good: it does not ask for it back
		d.base, d.lent, d.eased, d.cause = d.to, 0, 0, "what was left to it"
	}
	if prepared > 0 {
		d.counts.Revoked++
		s.b.decide(d.line, gnomon.Decision{Kind: gnomon.DecideRevoke, Amount: min(freed, prepared), Reason: reason})
	}
}

// leastLoan is the least part of an allocation that is worth lending.
const leastLoan = 16

// stage lowers memory of VMs that did not need it of late, so that it is there
// when a forecast comes true: getting it back takes seconds. It is a loan:
// the lender's base stays, and its first demand calls it back.
func (s *scene) stage() {
	if s.r != gnomon.Memory {
		return
	}
	need, _, _ := s.shortage()
	need += s.b.book.Total(s.r).Reserved
	cause := ""
	for _, l := range s.requests() {
		if lack := l.lacks(); lack > 0 {
			need += lack
			if cause == "" {
				cause = l.m.name()
			}
		}
	}
	if cause == "" || need <= 0 {
		return
	}
	var donors []donor
	for _, l := range s.lines {
		spare := l.standard() - max(l.tight(s.b.now), l.safe(s.b.now))
		if l.fresh && l.book.Reservation() == nil && l.allocated() == l.standard() && spare > l.allocated()/leastLoan {
			donors = append(donors, donor{l, l.allocated(), 0})
		}
	}
	plan(donors, need, func(l *line) int64 { return max(l.tight(s.b.now), l.safe(s.b.now)) })
	for _, d := range donors {
		d.lent += s.lower(d.line, d.stepTowards(d.to, s.b.now), gnomon.DecideReclaim, "lent ahead of the need of "+cause)
	}
}

// recall calls back what was lent by VMs that have fallen silent since: the
// standard path would take nothing from those. It reports whether there are any.
func (b *Broker) recall() (any bool) {
	b.each(func(l *line) {
		if l.lent > 0 && !l.current(b.now) {
			l.lent, l.cause, any = 0, "a silent lender", true
		}
	})
	return any
}

// giveBack settles loans. What demand has used up of them is gone for good, as
// the standard path would have taken it then; what nobody has a use for any
// more goes back to its lender.
func (s *scene) giveBack() {
	lent, there, asked := int64(0), max(0, s.free()), false
	for _, l := range s.lines {
		if l.flight == nil {
			l.lent = max(0, min(l.lent, l.base-l.eased-l.allocated()))
		}
		lent += l.lent
		there += l.book.Reserved() + max(0, l.allocated()-l.standard())
		asked = asked || l.lacks() > 0
	}
	gone := max(0, lent-there)
	for _, l := range s.lines {
		part := min(l.lent, gone)
		l.base, l.lent, gone = l.base-part, l.lent-part, gone-part
		back := min(l.lent, s.free())
		if asked || back <= 0 || !l.idle(l.allocated()+back, s.b.now) {
			continue
		}
		l.lent -= back
		from, reason := l.allocated(), fmt.Sprintf("%s lent come back", l.format(back))
		s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideGrow, Amount: back, From: from, To: from + back, Reason: reason})
		s.b.fault(l.book.Raise(from+back, 0, false, s.b.now))
		s.act(l, from, reason)
	}
}
