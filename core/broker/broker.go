// Package broker is one host's arbiter: it is told what happens, one event at a
// time, and says what to do. It is a single fold, Step, without I/O, clock or
// goroutine; the same events give the same decisions.
//
// Its principle is strictly lexicographic: floors before actual demand, actual
// demand before forecasts. Every VM and resource has a base, the level the
// standard path alone would hold it at, which depends on demand only. What
// forecasts add stands above that base, in reservations and prepared lots, and
// the standard path treats it as if it were free. So a shadow can take nothing
// from anyone. Among forecasts the higher priority goes first, and an account's
// quota bounds what its VMs have by them. Where the policy says Release, a forecast may leave its VM below
// the base, for as long as it proves right.
package broker

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// Options set what a broker does not learn from events.
type Options struct {
	// ActionTimeout is how long an action may go without its Applied before
	// the next sample's allocation counts as its outcome; 30 s if 0.
	ActionTimeout time.Duration

	// FirstID is the first id of actions and of reservations; 1 if 0.
	FirstID uint64
}

// Ready is what follows from one event. Record Decisions before carrying out
// Actions; carry out Actions in their order, those of different VMs or
// resources concurrently if wanted; send Answers at any time, nothing waits
// for them. What a Grant asked for and got are levels, that is total
// allocations; Got is what is allocated and reserved of the level asked for.
type Ready struct {
	Decisions []gnomon.Decision `json:"decisions,omitempty"`
	Actions   []gnomon.Action   `json:"actions,omitempty"`
	Answers   []gnomon.Answer   `json:"answers,omitempty"`

	// WakeAt is when to send a Tick if nothing else happens before; zero for
	// never.
	WakeAt time.Time `json:"wake_at,omitzero"`

	// Err tells that a promise of the ledger is broken, which is a bug. The
	// other fields are to be carried out all the same.
	Err error `json:"-"`
}

// Broker arbitrates the resources of one host. It is not safe for concurrent
// use.
type Broker struct {
	options  Options
	timeout  time.Duration
	now      time.Time
	wake     time.Time // as told last
	book     *ledger.Ledger
	machines []*machine // by VM id
	action   uint64     // id of the newest
	out      Ready
}

// machine is one VM that was taken in.
type machine struct {
	vm       gnomon.VM
	policy   gnomon.Policy
	found    time.Time
	attached bool
	session  uint64
	seq      uint64
	sampled  time.Time
	interval [2]time.Duration // of the last two samples
	lines    [gnomon.NumResources]*line
}

// New returns a broker that knows of no VM and no capacity yet.
func New(o Options) *Broker {
	if o.ActionTimeout <= 0 {
		o.ActionTimeout = 30 * time.Second
	}
	return &Broker{
		options: o,
		timeout: o.ActionTimeout,
		book:    ledger.New(o.FirstID),
		action:  max(o.FirstID, 1) - 1,
	}
}

// Step takes in one event and returns what follows from it. Time is that of
// the events; one that is older than its predecessor counts as simultaneous.
func (b *Broker) Step(e gnomon.Event) Ready {
	if e.At.After(b.now) {
		b.now = e.At
	}
	if e.Started != nil {
		*b = *New(b.options)
		b.now = e.At
	}
	b.out = Ready{}
	b.expire()
	if b.recall() {
		b.settle(gnomon.Memory)
	}
	switch {
	case e.Capacity != nil:
		b.book.SetCapacity(e.Capacity.Total)
	case e.Quota != nil:
		b.book.SetQuota(e.Quota.Account, e.Quota.Ahead)
	case e.Found != nil:
		b.foundVM(*e.Found)
	case e.Gone != nil:
		b.remove(e.Gone.VM, "the VM is gone")
	case e.Policy != nil:
		b.policyChanged(*e.Policy)
	case e.Sampled != nil:
		b.sampled(*e.Sampled)
	case e.Attached != nil:
		b.attach(*e.Attached)
	case e.Detached != nil:
		b.detach(*e.Detached)
	case e.Proposed != nil:
		b.proposed(*e.Proposed)
	case e.Demanded != nil:
		b.demanded(*e.Demanded)
	case e.Applied != nil:
		b.applied(*e.Applied)
	}
	touched := b.touched(e)
	for r := range gnomon.AllResources() {
		if touched.Has(r) {
			b.settle(r)
		}
	}
	b.wake = b.wakeAt()
	b.out.WakeAt = b.wake
	b.fault(b.Check())
	return b.out
}

// touched returns the resources for which an event may change anything.
func (b *Broker) touched(e gnomon.Event) (set gnomon.ResourceSet) {
	due := !b.wake.IsZero() && !b.wake.After(b.now)
	switch {
	case e.Applied != nil && !due:
		return gnomon.SetOf(e.Applied.Resource)
	case e.Sampled != nil && !due:
		return e.Sampled.Known
	case e.Proposed != nil && !due:
		for _, w := range e.Proposed.Wants {
			set = set.With(w.Resource)
		}
		return set
	}
	for r := range gnomon.AllResources() {
		set = set.With(r)
	}
	return set
}

// settle brings a resource as close to what is wanted as it can be now.
func (b *Broker) settle(r gnomon.Resource) {
	s := b.scene(r)
	s.limit()
	s.serve()
	s.reclaim()
	s.prepare()
	s.favour()
	s.stage()
	s.giveBack()
	s.shrink()
}

// Check verifies the promises of the ledger and of the broker itself. Any error
// is a bug. Step calls it after each event.
func (b *Broker) Check() error {
	errs := []error{b.book.Check()}
	b.each(func(l *line) {
		if err := l.check(b.now); err != nil {
			errs = append(errs, fmt.Errorf("%s of VM %s: %w", l.r, l.m.vm.ID, err))
		}
	})
	return errors.Join(errs...)
}

// fault notes what must not happen.
func (b *Broker) fault(err error) { b.out.Err = errors.Join(b.out.Err, err) }

func (b *Broker) decide(l *line, d gnomon.Decision) {
	d.At, d.VM, d.Resource = b.now, l.m.vm.ID, l.r
	b.out.Decisions = append(b.out.Decisions, d)
}

// wasted records capacity that ended unused, in unit-milliseconds, with what a
// wavering forecast has let go of since the last time.
func (b *Broker) wasted(l *line, amount int64, reason string) {
	if amount > 0 {
		l.owe(amount)
		b.decide(l, gnomon.Decision{Kind: gnomon.DecideWaste, Amount: l.owed, Reason: reason})
		l.owed = 0
	}
}

// owe adds to the waste to be told of.
func (l *line) owe(amount int64) { l.owed += min(amount, math.MaxInt64-l.owed) }

func compareID(m *machine, id gnomon.VMID) int { return strings.Compare(string(m.vm.ID), string(id)) }

func (b *Broker) find(id gnomon.VMID) (*machine, bool) {
	at, ok := slices.BinarySearchFunc(b.machines, id, compareID)
	if !ok {
		return nil, false
	}
	return b.machines[at], true
}

// each calls f for every line, by VM and resource.
func (b *Broker) each(f func(*line)) {
	for _, m := range b.machines {
		m.each(f)
	}
}

func (m *machine) each(f func(*line)) {
	for _, l := range m.lines {
		if l != nil {
			f(l)
		}
	}
}

// wakeAt returns when time alone will change something next.
func (b *Broker) wakeAt() (at time.Time) {
	sooner := func(t time.Time) {
		if t.After(b.now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	b.each(func(l *line) {
		if res := l.book.Reservation(); res != nil {
			sooner(res.Expires)
			if l.book.Reserved() > 0 {
				sooner(l.due(res))
			}
		}
		if l.lent > 0 {
			sooner(l.silentAt())
		}
		sooner(l.failed[0].retry)
		sooner(l.failed[1].retry)
	})
	return at
}
