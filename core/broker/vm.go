package broker

import (
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// foundVM takes a VM in as it is. Its past is unknown, so its base is what it
// has, and stays so until Hold has passed.
func (b *Broker) foundVM(f gnomon.Found) {
	b.remove(f.VM.ID, "the VM was found anew")
	m := &machine{vm: f.VM, policy: f.Policy, found: b.now}
	m.interval[0] = time.Second
	at, _ := slices.BinarySearchFunc(b.machines, f.VM.ID, compareID)
	b.machines = slices.Insert(b.machines, at, m)
	for r := range gnomon.AllResources() {
		b.open(m, r, f.Allocation[r])
	}
}

// open books one resource of a VM, if it can be limited and has a ceiling. No
// limit at all counts as the ceiling.
func (b *Broker) open(m *machine, r gnomon.Resource, observed int64) {
	bounds, ok := m.boundsOf(r)
	if !ok || m.lines[r] != nil {
		return
	}
	if observed < 0 {
		observed = bounds.Ceiling
	}
	book, err := b.book.Open(m.vm.ID, m.vm.Account, r, bounds, observed)
	if err != nil {
		b.fault(err)
		return
	}
	l := &line{m: m, r: r, book: book, bounds: bounds, steady: b.now, asked: -1}
	l.base = l.bound(book.Allocated())
	l.cause = "the floor"
	m.lines[r] = l
}

func (m *machine) boundsOf(r gnomon.Resource) (ledger.Bounds, bool) {
	if !m.vm.Limits.Has(r) || m.vm.Ceiling[r] <= 0 {
		return ledger.Bounds{}, false
	}
	ceiling := min(m.vm.Ceiling[r], ledger.MaxAmount)
	return ledger.Bounds{Floor: max(0, min(m.vm.Floor[r], ceiling)), Ceiling: ceiling}, true
}

// remove forgets a VM; all it held is free.
func (b *Broker) remove(id gnomon.VMID, reason string) {
	m, ok := b.find(id)
	if !ok {
		return
	}
	m.each(func(l *line) { b.close(l, reason) })
	b.machines = slices.DeleteFunc(b.machines, func(o *machine) bool { return o == m })
}

func (b *Broker) close(l *line, reason string) {
	b.void(l, reason)
	b.wasted(l, l.book.Close(b.now), reason)
	l.m.lines[l.r] = nil
}

// policyChanged puts new bounds into force at once, and those of a new account.
// A resource that gets its first ceiling is booked with the next sample, which
// tells what it has.
func (b *Broker) policyChanged(p gnomon.PolicyChanged) {
	m, ok := b.find(p.VM)
	if !ok {
		return
	}
	m.policy, m.vm.Account, m.vm.Limits, m.vm.Floor, m.vm.Ceiling = p.Policy, p.Account, p.Limits, p.Floor, p.Ceiling
	m.each(func(l *line) {
		bounds, ok := m.boundsOf(l.r)
		if !ok {
			b.close(l, "the resource is not managed any more")
			return
		}
		l.fresh = l.fresh || l.seen && bounds.Ceiling < l.bounds.Ceiling
		l.bounds = bounds
		l.book.SetBounds(bounds)
		l.book.SetAccount(p.Account)
		if l.bound(l.base) != l.base {
			l.cause = "a changed bound"
		}
		l.rebase(l.bound(l.base), b.now)
		if !p.Policy.Shadow {
			b.void(l, "proposals are not heeded any more")
		}
		if !p.Policy.Shadow || !p.Policy.Release {
			l.tense()
		}
	})
}

// attach opens an agent's session; what earlier ones reserved is void.
func (b *Broker) attach(a gnomon.Attached) {
	m, ok := b.find(a.VM)
	if !ok {
		return
	}
	b.voidSession(m, "the agent opened a new session")
	m.attached, m.session, m.seq = true, a.Session, 0
}

func (b *Broker) detach(d gnomon.Detached) {
	m, ok := b.find(d.VM)
	if !ok || !m.attached || m.session != d.Session {
		return
	}
	b.voidSession(m, "the agent's session ended")
	m.attached = false
}

func (b *Broker) voidSession(m *machine, reason string) {
	m.each(func(l *line) {
		l.tense()
		if res := l.book.Reservation(); res != nil && res.Session != operator {
			b.void(l, reason)
		}
	})
}

// void ends a line's reservation because its owner is gone.
func (b *Broker) void(l *line, reason string) {
	res := l.book.Reservation()
	if res == nil {
		return
	}
	amount := l.book.Reserved()
	waste := l.book.Drop(b.now)
	if amount > 0 {
		l.counts.Voided++
		b.decide(l, gnomon.Decision{Kind: gnomon.DecideVoid, Amount: amount, Reservation: res.ID, Reason: reason})
	}
	b.wasted(l, waste, reason)
}

// expire ends the reservations whose time is over. What was prepared under
// them shrinks back with the next sample.
func (b *Broker) expire() {
	b.each(func(l *line) {
		res := l.book.Reservation()
		if res == nil || res.Expires.After(b.now) {
			return
		}
		amount, prepared := l.book.Reserved(), l.book.Prepared()
		waste := l.book.Drop(b.now)
		if amount+prepared > 0 {
			l.counts.Expired++
			b.decide(l, gnomon.Decision{Kind: gnomon.DecideExpire, Amount: amount, Reservation: res.ID,
				Reason: fmt.Sprintf("no demand came for %s reserved and %s prepared",
					l.format(amount), l.format(prepared))})
		}
		b.wasted(l, waste, "reserved and not used")
	})
}

func (l *line) format(amount int64) string { return gnomon.Format(l.r, amount) }
