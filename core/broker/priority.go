package broker

import (
	"cmp"
	"slices"

	"github.com/gnomon-vm/gnomon"
)

func (l *line) priority() int64 { return l.m.policy.Priority }

// leastFirst returns the lines with something reserved: those of the lowest
// priority first, the least urgent of them first.
func (s *scene) leastFirst() (lines []*line) {
	for _, l := range s.lines {
		if l.book.Reserved() > 0 {
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b *line) int {
		return cmp.Or(cmp.Compare(a.priority(), b.priority()), b.book.Reservation().NeedAt.Compare(a.book.Reservation().NeedAt))
	})
	return lines
}

// secure makes way for up to amount more reserved for a line, and returns how
// much that is: of what is free and its account's quota has room for, and of
// what is reserved for VMs of a lower priority. Less than 0, to release, stays.
func (s *scene) secure(l *line, amount int64) int64 {
	if amount <= 0 {
		return amount
	}
	free, room := s.free(), l.book.Room()
	for _, o := range s.lines {
		if o.priority() < l.priority() {
			free += o.book.Reserved()
			if o.m.vm.Account == l.m.vm.Account {
				room += o.book.Reserved()
			}
		}
	}
	amount = max(0, min(amount, free, room))
	if amount <= min(s.free(), l.book.Room()) {
		return amount
	}
	reason := "a forecast of " + l.m.name() + " has priority"
	lower := slices.DeleteFunc(s.leastFirst(), func(o *line) bool { return o.priority() >= l.priority() })
	for _, o := range lower {
		if o.m.vm.Account == l.m.vm.Account {
			s.takeBack(o, min(amount-l.book.Room(), o.book.Reserved()), reason)
		}
	}
	for _, o := range lower {
		s.takeBack(o, min(amount-s.free(), o.book.Reserved()), reason)
	}
	return amount
}

// takeBack frees part of what is reserved and returns how much that is. The
// request stands on, and may be served again.
func (s *scene) takeBack(l *line, amount int64, reason string) int64 {
	if amount <= 0 {
		return 0
	}
	waste := l.book.Release(amount, s.b.now)
	l.counts.Revoked++
	s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideRevoke, Amount: amount,
		Reservation: l.book.Reservation().ID, Reason: reason})
	s.b.wasted(l, waste, reason)
	return amount
}

// favour lowers what is prepared for VMs of a lower priority, for the first
// request that could not be met: it gets what comes free.
func (s *scene) favour() {
	for _, l := range s.requests() {
		lacks := l.lacks()
		if lacks == 0 {
			continue
		}
		need, _, _ := s.shortage()
		need += s.b.book.Total(s.r).Reserved + lacks
		var donors []donor
		for _, o := range s.lines {
			if o.priority() < l.priority() && o.allocated() > o.standard() && o.mayMove(false, s.b.now) {
				donors = append(donors, donor{o, o.allocated(), 0})
			}
		}
		plan(donors, need, func(o *line) int64 { return max(o.standard(), o.safe(s.b.now)) })
		for _, d := range donors {
			s.take(d, "a forecast of "+l.m.name()+" has priority")
		}
		return
	}
}
