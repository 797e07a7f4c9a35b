package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// none is the target of an entry with nothing in flight.
const none = int64(-1)

// Bounds are the least and the most a VM may be given of one resource.
type Bounds struct {
	Floor, Ceiling int64
}

// Entry is the book of one VM and one resource.
//
//	0 ──────── own ──────── allocated ──── reserved ────
//	                   └ prepared ┘
//
// Prepared is the top of the allocation: handed over, or kept, for a forecast
// and not needed by demand so far.
type Entry struct {
	ledger   *Ledger
	vm       gnomon.VMID
	resource gnomon.Resource
	bounds   Bounds

	account string
	quota   *quota // of the account, nil for none
	counted int64  // what it counts of this entry

	allocated int64 // booked
	observed  int64 // seen in force
	target    int64 // of the action in flight, or none

	reservation *Reservation
	reserved    lot
	prepared    lot
	waste       float64 // unit-seconds
}

// Reservation is capacity that stands ready for one VM, and the terms on which
// it does. Its amount is the entry's Reserved, and may be 0 when the level it
// asks for is allocated already, or not to be had yet.
type Reservation struct {
	ID      uint64    `json:"id"`
	Session uint64    `json:"session"` // of the agent that owns it, 0 for the operator
	Level   int64     `json:"level"`   // the total allocation to have ready
	Created time.Time `json:"created"`
	NeedAt  time.Time `json:"need_at"`
	Expires time.Time `json:"expires"`
	Reason  string    `json:"reason"`
}

// Allocated returns the booked allocation: never less than what is in force.
func (e *Entry) Allocated() int64 { return e.allocated }

// Observed returns the allocation last seen in force.
func (e *Entry) Observed() int64 { return e.observed }

// Reserved returns the amount reserved above the allocation.
func (e *Entry) Reserved() int64 { return e.reserved.amount }

// Prepared returns how much of the allocation demand has not needed so far.
func (e *Entry) Prepared() int64 { return e.prepared.amount }

// Target returns the limit being set, and whether one is.
func (e *Entry) Target() (int64, bool) { return e.target, e.target != none }

// Reservation returns the live reservation's terms, nil if there is none.
func (e *Entry) Reservation() *Reservation { return e.reservation }

// Waste returns what was reserved or prepared and ended unused so far, as
// amount × time, in unit-seconds.
func (e *Entry) Waste() float64 { return e.waste }

// SetBounds replaces the bounds. An allocation outside the new ones is the
// broker's to correct.
func (e *Entry) SetBounds(b Bounds) { e.bounds = b }

func (e *Entry) page() *page { return &e.ledger.pages[e.resource] }

// book sets the allocation and what is observed of it.
func (e *Entry) book(observed int64) {
	e.page().allocated += observed - e.allocated
	e.allocated, e.observed, e.target = observed, observed, none
}

// Raise books a higher allocation, which is then in flight: fromReserved of
// the difference comes out of the reservation, the rest out of what is free.
// With early what was reserved becomes prepared; otherwise demand has it.
func (e *Entry) Raise(to, fromReserved int64, early bool, now time.Time) error {
	p, grow := e.page(), to-e.allocated
	switch {
	case e.target != none:
		return errors.New("raise allocation: an action is in flight")
	case grow <= 0:
		return fmt.Errorf("raise allocation to %d: it is %d", to, e.allocated)
	case to > e.bounds.Ceiling:
		return fmt.Errorf("raise allocation to %d: the ceiling is %d", to, e.bounds.Ceiling)
	case fromReserved < 0 || fromReserved > min(grow, e.reserved.amount):
		return fmt.Errorf("raise allocation: cannot take %d out of %d reserved", fromReserved, e.reserved.amount)
	case grow > fromReserved && grow-fromReserved > p.free():
		return fmt.Errorf("raise allocation: %d wanted, %d free", grow-fromReserved, p.free())
	}
	accrued := e.reserved.take(fromReserved, now)
	if early {
		e.prepared.add(fromReserved, accrued, now)
	}
	p.reserved -= fromReserved
	p.allocated += grow
	e.allocated, e.target = to, to
	e.settled()
	return nil
}

// Lower puts a lower limit in flight. Nothing is free before Observe says so.
func (e *Entry) Lower(to int64) error {
	switch {
	case e.target != none:
		return errors.New("lower allocation: an action is in flight")
	case to < 0 || to >= e.allocated:
		return fmt.Errorf("lower allocation to %d: it is %d", to, e.allocated)
	case to < e.bounds.Floor:
		return fmt.Errorf("lower allocation to %d: the floor is %d", to, e.bounds.Floor)
	}
	e.target = to
	return nil
}

// Observe books the allocation seen in force and ends what was in flight. It
// returns what of the prepared lot ended unused by that, in unit-milliseconds.
func (e *Entry) Observe(observed int64, now time.Time) (waste int64) {
	p := e.page()
	observed = clamp(observed)
	grew := observed > e.allocated
	if lost := e.allocated - observed; lost > 0 {
		waste = e.end(&e.prepared, lost, now)
	}
	e.book(observed)
	if grew {
		p.over = max(p.over, -p.free())
	}
	e.settled()
	return waste
}

// Reserve replaces the reservation, or makes the first one: amount becomes the
// entry's Reserved. It returns what ended unused by that, in unit-milliseconds.
func (e *Entry) Reserve(terms Reservation, amount int64, now time.Time) (waste int64, err error) {
	p, more := e.page(), amount-e.reserved.amount
	switch {
	case amount < 0:
		return 0, fmt.Errorf("reserve %d: want 0 or more", amount)
	case !terms.Expires.After(now):
		return 0, errors.New("reserve: it would have expired")
	case more > 0 && more > p.free():
		return 0, fmt.Errorf("reserve: %d more wanted, %d free", more, p.free())
	case more > 0 && more > e.Room():
		return 0, fmt.Errorf("reserve: %d more wanted, the quota of account %q leaves %d", more, e.account, e.Room())
	case amount > 0 && e.allocated+amount > e.bounds.Ceiling:
		return 0, fmt.Errorf("reserve %d above %d: the ceiling is %d", amount, e.allocated, e.bounds.Ceiling)
	}
	if old := e.reservation; old == nil {
		e.ledger.last++
		terms.ID, terms.Created = e.ledger.last, now
	} else {
		terms.ID, terms.Created = old.ID, old.Created
	}
	e.reservation = &terms
	if more < 0 {
		return e.Release(-more, now), nil
	}
	e.reserved.add(more, 0, now)
	p.reserved += more
	e.settled()
	return 0, nil
}

// Release frees up to amount of what is reserved; the terms stay. It returns
// what ended unused by that, in unit-milliseconds.
func (e *Entry) Release(amount int64, now time.Time) (waste int64) {
	p, before := e.page(), e.reserved.amount
	waste = e.end(&e.reserved, amount, now)
	p.reserved += e.reserved.amount - before
	e.settled()
	return waste
}

// Drop ends the reservation. It returns what ended unused by that, in
// unit-milliseconds.
func (e *Entry) Drop(now time.Time) (waste int64) {
	waste = e.Release(e.reserved.amount, now)
	e.reservation = nil
	return waste
}

// Use tells that demand needs up to amount of what was prepared, and returns
// how much that is.
func (e *Entry) Use(amount int64, now time.Time) int64 {
	amount = max(0, min(amount, e.prepared.amount))
	e.prepared.take(amount, now)
	e.settled()
	return amount
}

// Keep tells that amount more of the allocation is kept for a forecast only, as
// far as the account's quota has room for it.
func (e *Entry) Keep(amount int64, now time.Time) {
	e.prepared.add(max(0, min(amount, e.allocated-e.prepared.amount, e.Room())), 0, now)
	e.settled()
}

// Close removes the entry: all it held is free. It returns what ended unused
// by that, in unit-milliseconds.
func (e *Entry) Close(now time.Time) (waste int64) {
	p := e.page()
	waste = add(e.Drop(now), e.end(&e.prepared, e.prepared.amount, now))
	e.book(0)
	e.leave()
	p.entries = slices.DeleteFunc(p.entries, func(o *Entry) bool { return o == e })
	p.settled()
	return waste
}

// settled brings the balance and the quota up to date with the entry.
func (e *Entry) settled() {
	e.count()
	e.page().settled()
}

// end takes up to amount out of a lot as unused.
func (e *Entry) end(l *lot, amount int64, now time.Time) int64 {
	unused := l.take(amount, now)
	e.waste += float64(unused) / 1000
	return unused
}

func (e *Entry) check() error {
	switch {
	case e.allocated < 0 || e.observed < 0:
		return errors.New("a negative amount is booked")
	case e.allocated < e.observed || e.allocated < e.target:
		return fmt.Errorf("%d is booked, %d is in force and %d being set", e.allocated, e.observed, e.target)
	case e.target == none && e.allocated != e.observed:
		return fmt.Errorf("%d is booked, %d observed, and nothing is in flight", e.allocated, e.observed)
	case e.prepared.amount > e.allocated:
		return fmt.Errorf("%d prepared of %d allocated", e.prepared.amount, e.allocated)
	case e.reserved.amount > 0 && e.reservation == nil:
		return fmt.Errorf("%d is reserved without an owner", e.reserved.amount)
	}
	return nil
}
