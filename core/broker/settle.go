package broker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// scene is one resource of the host while it is settled.
type scene struct {
	b     *Broker
	r     gnomon.Resource
	lines []*line // by VM
}

func (b *Broker) scene(r gnomon.Resource) *scene {
	s := &scene{b: b, r: r}
	for _, m := range b.machines {
		if l := m.lines[r]; l != nil {
			s.lines = append(s.lines, l)
		}
	}
	return s
}

func (s *scene) free() int64 { return s.b.book.Free(s.r) }

// serve raises allocations to what demand is entitled to: those below their
// floor first, then first come, first served.
func (s *scene) serve() {
	var short []*line
	floors := int64(0) // what is missing to the floors of those not served yet
	for _, l := range s.lines {
		s.trim(l)
		if l.lack(l.allocated()) == 0 {
			l.short = time.Time{}
			continue
		}
		if l.short.IsZero() {
			l.short = s.b.now
		}
		short = append(short, l)
		floors += l.belowFloor()
	}
	if debt := -s.free(); debt > 0 {
		s.revoke(nil, debt, "the host has less than it promised")
	}
	slices.SortStableFunc(short, func(a, b *line) int {
		if (a.belowFloor() > 0) != (b.belowFloor() > 0) {
			return cmp.Compare(b.belowFloor(), a.belowFloor())
		}
		return a.short.Compare(b.short)
	})
	for _, l := range short {
		floors -= l.belowFloor()
		s.raise(l, floors)
	}
}

// lack is what demand is entitled to beyond level, if the hypervisor has not
// come as close to it as it can.
func (l *line) lack(level int64) int64 {
	if l.asked == l.standard() && l.got == level {
		return 0
	}
	return max(0, l.standard()-level)
}

func (l *line) belowFloor() int64 { return max(0, l.bounds.Floor-l.allocated()) }

// trim releases what is reserved beyond the level asked for, now that more is
// allocated or less allowed.
func (s *scene) trim(l *line) {
	if over := l.book.Reserved() - l.missing(); over > 0 {
		l.owe(l.book.Release(over, s.b.now))
	}
}

// raise brings an allocation towards its standard: out of the VM's own
// reservation first, then out of what is free, then out of other VMs'
// reservations. That much is left for the floors of others.
func (s *scene) raise(l *line, leave int64) {
	to := l.standard()
	need := to - l.allocated()
	if need <= 0 || !l.idle(to, s.b.now) {
		return
	}
	own := min(need, l.book.Reserved())
	rest := need - own
	if spare := s.obtainable(l) - leave; rest > spare {
		rest = max(spare, min(rest, l.belowFloor()-own), 0)
	}
	if lack := rest - s.free(); rest > 0 && lack > 0 {
		s.revoke(l, lack, "demand of "+l.m.name()+" comes first")
	}
	free := max(0, min(rest, s.free()))
	if own+free == 0 {
		return
	}
	from := l.allocated()
	reason := fmt.Sprintf("%s wants %s, %s allocated", l.cause, l.format(to), l.format(from))
	if own > 0 {
		id := l.book.Reservation().ID
		reason += fmt.Sprintf("; %s from reservation %d", l.format(own), id)
		s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideHandover, Amount: own,
			From: from, To: from + own, Reservation: id, Reason: reason})
	}
	if free > 0 {
		reason += fmt.Sprintf("; %s from free capacity", l.format(free))
		s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideGrow, Amount: free,
			From: from + own, To: from + own + free, Reason: reason})
	}
	s.b.fault(l.book.Raise(from+own+free, own, false, s.b.now))
	s.act(l, from, reason)
}

// obtainable is what l's demand can have at once besides its own reservation.
func (s *scene) obtainable(l *line) int64 {
	return s.free() + s.b.book.Total(s.r).Reserved - l.book.Reserved()
}

// revoke frees what is reserved up to amount, but for the winner: of the lowest
// priority first, of that the least urgent.
func (s *scene) revoke(winner *line, amount int64, reason string) {
	for _, l := range s.leastFirst() {
		if l != winner {
			amount -= s.takeBack(l, min(amount, l.book.Reserved()), reason)
		}
	}
}

// prepare adds what can be had to the reservations that are short, and hands
// over those that will be needed soon.
func (s *scene) prepare() {
	for _, l := range s.requests() {
		res := l.book.Reservation()
		if more := s.secure(l, l.missing()-l.book.Reserved()); more > 0 {
			_, err := l.book.Reserve(*res, l.book.Reserved()+more, s.b.now)
			s.b.fault(err)
			s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideReserve, Amount: more, Reservation: res.ID,
				Verdict: gnomon.Granted, Reason: "more came free for the " + res.Reason})
		}
		own, from := l.book.Reserved(), l.allocated()
		if l.ease.level > 0 {
			own = min(own, l.ease.level-from)
		} else if own <= from/leastHandover || l.due(res).After(s.b.now) {
			continue
		}
		if own <= 0 || from < l.standard() || !l.idle(from+own, s.b.now) {
			continue
		}
		if l.r == gnomon.Memory && !l.current(s.b.now) {
			continue // without knowing its use, it could not be taken back for demand
		}
		reason := fmt.Sprintf("%s; %s from reservation %d ahead of demand", res.Reason, l.format(own), res.ID)
		s.b.decide(l, gnomon.Decision{Kind: gnomon.DecideHandover, Amount: own,
			From: from, To: from + own, Reservation: res.ID, Reason: reason})
		s.b.fault(l.book.Raise(from+own, own, true, s.b.now))
		s.act(l, from, reason)
	}
}

// requests returns the lines with a live request: those of the highest priority
// first, the most urgent of them first.
func (s *scene) requests() (lines []*line) {
	for _, l := range s.lines {
		if l.book.Reservation() != nil {
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b *line) int {
		return cmp.Or(cmp.Compare(b.priority(), a.priority()), a.book.Reservation().NeedAt.Compare(b.book.Reservation().NeedAt))
	})
	return lines
}

// missing is what a live request asks for beyond what is allocated; lacks is
// what of it is not reserved either, as far as the account's quota has room.
func (l *line) missing() int64 {
	res := l.book.Reservation()
	if res == nil {
		return 0
	}
	return max(0, min(res.Level, l.bounds.Ceiling)-l.allocated())
}

func (l *line) lacks() int64 { return max(0, min(l.missing()-l.book.Reserved(), l.book.Room())) }

// leastShrink and leastHandover are the shares of an allocation below which a
// limit does not follow a forecast that wavers.
const (
	leastShrink   = 10
	leastHandover = 20
)

// shrink lowers what stands above both the standard and what a live request
// holds, once per sample: the next one shows what it did to the VM.
func (s *scene) shrink() {
	for _, l := range s.lines {
		goal := l.goal()
		spare := l.allocated() - goal
		least := int64(0)
		if l.ease.level > 0 {
			least = l.allocated() / leastEase
		} else if goal > l.standard() {
			least = l.allocated() / leastShrink
		}
		if !l.fresh || spare <= 0 || spare < least {
			continue
		}
		reason := "for what was needed of late"
		if goal > l.standard() {
			reason = "for what is forecast"
		}
		s.lower(l, l.stepTowards(goal, s.b.now), gnomon.DecideShrink, l.format(goal)+" is enough "+reason)
	}
}

// goal is the level an allocation shrinks to.
func (l *line) goal() int64 { return max(l.standard(), l.held()) }

// stepTowards is how far an allocation shrinks at once towards a goal. Memory
// goes in steps, because page cache once lost is not given back.
func (l *line) stepTowards(goal int64, now time.Time) int64 {
	if l.r != gnomon.Memory {
		return goal
	}
	step := max(l.allocated()/stepPart, memoryStep)
	if seconds := int64(l.m.interval[0] / time.Second); seconds > 1 {
		step *= min(seconds, stepPart)
	}
	return max(goal, l.safe(now), l.allocated()-step)
}

// lower puts a lower limit in flight; it returns what that will free.
func (s *scene) lower(l *line, to int64, kind gnomon.DecisionKind, reason string) int64 {
	from := l.allocated()
	if to >= from || !l.idle(to, s.b.now) {
		return 0
	}
	s.b.fault(l.book.Lower(to))
	s.b.decide(l, gnomon.Decision{Kind: kind, Amount: from - to, From: from, To: to, Reason: reason})
	l.fresh = false
	s.act(l, from, reason)
	return from - to
}

// act sends the action for the target just booked.
func (s *scene) act(l *line, from int64, reason string) {
	to, _ := l.book.Target()
	s.b.action++
	a := gnomon.Action{ID: s.b.action, VM: l.m.vm.ID, Resource: l.r, From: from, To: to, Reason: reason}
	l.flight = &flight{a, s.b.now}
	s.b.out.Actions = append(s.b.out.Actions, a)
}

func (m *machine) name() string {
	if m.vm.Name != "" {
		return m.vm.Name
	}
	return string(m.vm.ID)
}
