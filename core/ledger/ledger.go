// Package ledger is the book of one host: for each resource, capacity =
// allocated + reserved + free, and for each VM what it has been allocated,
// what was observed in force, and what stands ready for it.
//
// It decides nothing. It records what the broker decides, refuses what would
// break a promise, and measures what ended unused. Growth is booked before it
// is acted on; a shrink frees only what was observed to be free.
package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gnomon-vm/gnomon"
)

// MaxAmount bounds every amount in the book, so that no sum can overflow:
// larger ones are booked as this.
const MaxAmount = int64(1) << 50

// Ledger is one host's book. The zero value is an empty one without capacity.
type Ledger struct {
	pages [gnomon.NumResources]page
	last  uint64 // id of the newest reservation
}

// page is the book of one resource. Free is not kept but derived.
type page struct {
	capacity  int64
	allocated int64
	reserved  int64
	over      int64    // how far discovery, not a grant, has put free below 0
	entries   []*Entry // by VM
	quotas    map[string]*quota
}

func (p *page) free() int64 { return p.capacity - p.allocated - p.reserved }

// discovered accepts that what was found may exceed the capacity; settled
// takes that licence back as far as it is not needed any more.
func (p *page) discovered() { p.over = max(0, -p.free()) }
func (p *page) settled()    { p.over = min(p.over, max(0, -p.free())) }

// New returns an empty ledger that numbers its reservations from first on.
func New(first uint64) *Ledger { return &Ledger{last: max(first, 1) - 1} }

// SetCapacity books what the host may promise. It may fall below what is
// promised already: free is then negative until allocations shrink.
func (l *Ledger) SetCapacity(total gnomon.Resources) {
	for r := range gnomon.AllResources() {
		p := &l.pages[r]
		p.capacity = clamp(total[r])
		p.discovered()
	}
}

// SetQuota books what the entries of one account may have ahead of demand, all
// together; 0 for no quota. It may fall below what they have already: until
// they have less, they get no more.
func (l *Ledger) SetQuota(account string, ahead gnomon.Resources) {
	for r := range gnomon.AllResources() {
		p := &l.pages[r]
		delete(p.quotas, account)
		if ahead[r] > 0 {
			if p.quotas == nil {
				p.quotas = map[string]*quota{}
			}
			p.quotas[account] = &quota{limit: clamp(ahead[r])}
		}
		for _, e := range p.entries {
			if e.account == account {
				e.join(account)
			}
		}
	}
}

// Total is one resource's line of the balance. Capacity = Allocated + Reserved
// + Free.
type Total struct {
	Capacity  int64 `json:"capacity"`
	Allocated int64 `json:"allocated"`
	Reserved  int64 `json:"reserved"`
	Free      int64 `json:"free"`
}

// Total returns the balance of r.
func (l *Ledger) Total(r gnomon.Resource) Total {
	p := &l.pages[r]
	return Total{Capacity: p.capacity, Allocated: p.allocated, Reserved: p.reserved, Free: p.free()}
}

// Free returns what of r is neither allocated nor reserved. It is negative
// while more was found in use than the host may promise.
func (l *Ledger) Free(r gnomon.Resource) int64 { return l.pages[r].free() }

// Open books a VM's allocation as it was observed, whatever the capacity, for
// an account, which may have no name. The VM must not have an entry for r.
func (l *Ledger) Open(vm gnomon.VMID, account string, r gnomon.Resource, bounds Bounds, observed int64) (*Entry, error) {
	p := &l.pages[r]
	at, found := slices.BinarySearchFunc(p.entries, vm, compareVM)
	if found {
		return nil, fmt.Errorf("book %s of VM %s: it has an entry", r, vm)
	}
	e := &Entry{ledger: l, vm: vm, resource: r, bounds: bounds, target: none}
	p.entries = slices.Insert(p.entries, at, e)
	e.join(account)
	e.book(clamp(observed))
	p.discovered()
	return e, nil
}

func compareVM(e *Entry, vm gnomon.VMID) int { return strings.Compare(string(e.vm), string(vm)) }

// Check verifies the promises the book can keep by itself. Any error is a bug.
func (l *Ledger) Check() error {
	var errs []error
	for r := range gnomon.AllResources() {
		p := &l.pages[r]
		var allocated, reserved int64
		ahead := map[*quota]int64{}
		for _, e := range p.entries {
			allocated += e.allocated
			reserved += e.Reserved()
			if e.quota != nil {
				ahead[e.quota] += e.Ahead()
			}
			if err := e.check(); err != nil {
				errs = append(errs, fmt.Errorf("%s of VM %s: %w", r, e.vm, err))
			}
		}
		if allocated != p.allocated || reserved != p.reserved {
			errs = append(errs, fmt.Errorf("%s: entries hold %d allocated and %d reserved, the balance says %d and %d",
				r, allocated, reserved, p.allocated, p.reserved))
		}
		for _, e := range p.entries {
			if err := e.quota.check(ahead[e.quota]); err != nil {
				errs = append(errs, fmt.Errorf("%s of account %q: %w", r, e.account, err))
			}
		}
		if free := p.free(); free < -p.over {
			errs = append(errs, fmt.Errorf("%s: granted %d more than there is", r, -p.over-free))
		}
	}
	return errors.Join(errs...)
}

func clamp(amount int64) int64 { return max(0, min(amount, MaxAmount)) }
