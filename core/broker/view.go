package broker

import (
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// VMState is what the broker knows of one VM.
type VMState struct {
	VM       gnomon.VM     `json:"vm"`
	Policy   gnomon.Policy `json:"policy"`
	Attached bool          `json:"attached"` // an agent has a session
	Session  uint64        `json:"session"`

	// Resources are by resource; a nil one is not managed for this VM.
	Resources [gnomon.NumResources]*ResourceState `json:"resources"`
}

// ResourceState is what the broker knows of one resource of one VM. Amounts
// are in the resource's unit.
type ResourceState struct {
	Floor     int64 `json:"floor"`
	Ceiling   int64 `json:"ceiling"`
	Allocated int64 `json:"allocated"` // booked
	Observed  int64 `json:"observed"`  // last seen in force
	Base      int64 `json:"base"`      // what the standard path alone would hold
	Reserved  int64 `json:"reserved"`  // above Allocated
	Prepared  int64 `json:"prepared"`  // of Allocated, for a forecast
	Lent      int64 `json:"lent"`      // of Base, to others' forecasts

	Reservation *ledger.Reservation `json:"reservation,omitempty"` // the live request
	InFlight    *gnomon.Action      `json:"in_flight,omitempty"`

	Reading
	Counts
	Waste float64 `json:"waste"` // unit-seconds that ended unused
}

// Reading is what a VM and its shadow told last of one resource.
type Reading struct {
	SampledAt time.Time     `json:"sampled_at,omitzero"`
	Usage     int64         `json:"usage"`
	Demand    int64         `json:"demand"`
	Starved   time.Duration `json:"starved"`

	ForecastAt time.Time   `json:"forecast_at,omitzero"`
	Forecast   gnomon.Want `json:"forecast"`
}

// Counts count since the VM was found.
type Counts struct {
	Requested uint64 `json:"requested"` // Granted + Partial + Denied
	Granted   uint64 `json:"granted"`
	Partial   uint64 `json:"partial"`
	Denied    uint64 `json:"denied"`
	Refused   uint64 `json:"refused"` // wants of faulty proposals
	Expired   uint64 `json:"expired"`
	Revoked   uint64 `json:"revoked"`
	Voided    uint64 `json:"voided"`

	Hits       uint64 `json:"hits"`
	Misses     uint64 `json:"misses"`
	HitAmount  int64  `json:"hit_amount"`
	MissAmount int64  `json:"miss_amount"`
}

// View returns the state of one VM, and whether it is taken in.
func (b *Broker) View(id gnomon.VMID) (VMState, bool) {
	m, ok := b.find(id)
	if !ok {
		return VMState{}, false
	}
	return m.view(), true
}

// VMs returns the state of every VM, by id.
func (b *Broker) VMs() []VMState {
	states := make([]VMState, 0, len(b.machines))
	for _, m := range b.machines {
		states = append(states, m.view())
	}
	return states
}

// Totals returns the host's balance of each resource.
func (b *Broker) Totals() [gnomon.NumResources]ledger.Total {
	var t [gnomon.NumResources]ledger.Total
	for r := range gnomon.AllResources() {
		t[r] = b.book.Total(r)
	}
	return t
}

func (m *machine) view() VMState {
	v := VMState{VM: m.vm, Policy: m.policy, Attached: m.attached, Session: m.session}
	m.each(func(l *line) { v.Resources[l.r] = l.view() })
	return v
}

func (l *line) view() *ResourceState {
	s := &ResourceState{
		Floor: l.bounds.Floor, Ceiling: l.bounds.Ceiling,
		Allocated: l.allocated(), Observed: l.book.Observed(), Base: l.base,
		Reserved: l.book.Reserved(), Prepared: l.book.Prepared(), Lent: l.lent,
		Reading: l.last, Counts: l.counts, Waste: l.book.Waste(),
	}
	if res := l.book.Reservation(); res != nil {
		terms := *res
		s.Reservation = &terms
	}
	if l.flight != nil {
		a := l.flight.action
		s.InFlight = &a
	}
	return s
}
