package broker_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// world is a host for the broker to arbitrate: it keeps limits in force and
// carries out actions, and checks the promises from outside, knowing nothing
// of how the broker keeps them.
type world struct {
	t        failer
	b        *broker.Broker
	now      time.Time
	vms      map[gnomon.VMID]*guest
	capacity gnomon.Resources
	quotas   map[string]gnomon.Resources
	pending  []gnomon.Action
	issued   map[line]issue // the newest action of each, until its outcome was told
	lastID   uint64
	log      []gnomon.Event
	outcomes []broker.Ready
}

type line struct {
	vm gnomon.VMID
	r  gnomon.Resource
}

type issue struct {
	id uint64
	at time.Time
}

type failer interface{ Fatalf(string, ...any) }

type guest struct {
	vm     gnomon.VM
	policy gnomon.Policy
	limits gnomon.Resources
}

func newWorld(t failer) *world {
	return &world{t: t, b: broker.New(broker.Options{}), now: epoch, vms: map[gnomon.VMID]*guest{}, quotas: map[string]gnomon.Resources{}, issued: map[line]issue{}}
}

func (w *world) ids() []gnomon.VMID { return slices.Sorted(maps.Keys(w.vms)) }

func (w *world) step(e gnomon.Event) broker.Ready {
	e.At = w.now
	before, ahead := w.b.Totals(), w.ahead()
	ready := w.b.Step(e)
	w.log = append(w.log, e)
	w.outcomes = append(w.outcomes, ready)
	if ready.Err != nil {
		w.t.Fatalf("after %s: %v", show(e), ready.Err)
	}
	w.check(e, ready, before)
	w.checkQuotas(e, ahead)
	w.checkPriorities(e)
	w.pending = append(w.pending, ready.Actions...)
	return ready
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// check holds the six promises against what the broker says and does.
func (w *world) check(e gnomon.Event, ready broker.Ready, before [gnomon.NumResources]ledger.Total) {
	fail := func(format string, args ...any) {
		w.t.Fatalf("after %s: %s\nready %s", show(e), fmt.Sprintf(format, args...), show(ready))
	}
	totals := w.b.Totals()
	for r := range gnomon.AllResources() {
		var allocated, reserved int64
		for _, v := range w.b.VMs() {
			if s := v.Resources[r]; s != nil {
				allocated += s.Allocated
				reserved += s.Reserved
				w.checkLine(fail, v.VM.ID, r, *s)
			}
		}
		sum := totals[r]
		if sum.Allocated != allocated || sum.Reserved != reserved || sum.Capacity != allocated+reserved+sum.Free {
			fail("%v: %+v with %d allocated and %d reserved", r, sum, allocated, reserved)
		}
		discovery := e.Found != nil || e.Capacity != nil || e.Sampled != nil || e.Applied != nil
		if sum.Free < 0 && sum.Free < before[r].Free && !discovery {
			fail("%v: a grant brought free from %d to %d", r, before[r].Free, sum.Free)
		}
	}
	for _, a := range ready.Actions {
		w.checkAction(fail, a)
	}
}

// ahead is what the VMs of each account have ahead of demand.
func (w *world) ahead() map[string]gnomon.Resources {
	sums := map[string]gnomon.Resources{}
	for _, v := range w.b.VMs() {
		account := v.VM.Account
		if g := w.vms[v.VM.ID]; g != nil {
			account = g.vm.Account // which it is about to be told of
		}
		sum := sums[account]
		for r, s := range v.Resources {
			if s != nil {
				sum[r] += s.Reserved + s.Prepared
			}
		}
		sums[account] = sum
	}
	return sums
}

// checkQuotas holds that no account has more ahead than its quota, but for what
// it had before, when that was larger.
func (w *world) checkQuotas(e gnomon.Event, before map[string]gnomon.Resources) {
	for account, sum := range w.ahead() {
		for r, quota := range w.quotas[account] {
			if quota > 0 && sum[r] > max(quota, before[account][r]) {
				w.t.Fatalf("after %s: account %q has %d %v ahead of demand, its quota is %d, and it had %d",
					show(e), account, sum[r], gnomon.Resource(r), quota, before[account][r])
			}
		}
	}
}

// checkPriorities holds that nothing is reserved for a VM while a request of a
// higher priority lacks something that it could have instead.
func (w *world) checkPriorities(e gnomon.Event) {
	ahead := w.ahead()
	for _, high := range w.b.VMs() {
		for r, s := range high.Resources {
			if s == nil || s.Reservation == nil || min(s.Reservation.Level, s.Ceiling) <= s.Allocated+s.Reserved {
				continue
			}
			quota := w.quotas[high.VM.Account][r]
			exhausted := quota > 0 && ahead[high.VM.Account][r] >= quota
			for _, low := range w.b.VMs() {
				if exhausted && low.VM.Account != high.VM.Account {
					continue
				}
				if l := low.Resources[r]; l != nil && l.Reserved > 0 && low.Policy.Priority < high.Policy.Priority {
					w.t.Fatalf("after %s: %d %v are reserved for %s of priority %d, and %s of priority %d lacks some",
						show(e), l.Reserved, gnomon.Resource(r), low.VM.ID, low.Policy.Priority, high.VM.ID, high.Policy.Priority)
				}
			}
		}
	}
}

func (w *world) checkLine(fail func(string, ...any), id gnomon.VMID, r gnomon.Resource, s broker.ResourceState) {
	g := w.vms[id]
	if s.Observed > s.Allocated || s.InFlight == nil && s.Observed != s.Allocated {
		fail("%s %v: observed %d, booked %d, in flight %v", id, r, s.Observed, s.Allocated, s.InFlight)
	}
	if s.Reserved > 0 {
		res := s.Reservation
		if res == nil || !res.Expires.After(w.now) || res.Expires.After(w.now.Add(10*time.Minute)) {
			fail("%s %v: %d reserved by %+v at %v", id, r, s.Reserved, res, w.now)
		}
		if !g.policy.Shadow {
			fail("%s %v: a reservation of a VM without a shadow", id, r)
		}
		if s.Allocated+s.Reserved > g.vm.Ceiling[r] {
			fail("%s %v: %d allocated and %d reserved above the ceiling", id, r, s.Allocated, s.Reserved)
		}
	}
}

func (w *world) checkAction(fail func(string, ...any), a gnomon.Action) {
	if a.ID <= w.lastID {
		fail("action %d after %d", a.ID, w.lastID)
	}
	w.lastID = a.ID
	of := line{a.VM, a.Resource}
	if o, ok := w.issued[of]; ok && w.now.Sub(o.at) < 30*time.Second {
		fail("action %d while %d is in flight", a.ID, o.id)
	}
	w.issued[of] = issue{a.ID, w.now}
	g := w.vms[a.VM]
	if g == nil || !g.vm.Limits.Has(a.Resource) {
		fail("an action on %s %v, which cannot be limited", a.VM, a.Resource)
	}
	floor, ceiling := g.vm.Floor[a.Resource], g.vm.Ceiling[a.Resource]
	if a.To > a.From && a.To > ceiling || a.To < a.From && a.To < floor || a.To == a.From {
		fail("from %d to %d with floor %d and ceiling %d", a.From, a.To, floor, ceiling)
	}
	s := state(w.b, a.VM, a.Resource)
	if s.Allocated < a.To {
		fail("action %d raises to %d, booked are %d", a.ID, a.To, s.Allocated)
	}
	if a.Reason == "" {
		fail("action %d without a reason", a.ID)
	}
}

func state(b *broker.Broker, id gnomon.VMID, r gnomon.Resource) *broker.ResourceState {
	v, _ := b.View(id)
	return v.Resources[r]
}

// land carries out one pending action, to the given amount.
func (w *world) land(i int, observed int64, failure string) {
	a := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	if g := w.vms[a.VM]; g != nil {
		g.limits[a.Resource] = observed
	}
	if of := (line{a.VM, a.Resource}); w.issued[of].id == a.ID {
		delete(w.issued, of)
	}
	w.step(gnomon.Event{Applied: &gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: observed, Error: failure}})
}

// settle carries out all pending actions as asked, and those that follow.
func (w *world) settle() {
	for n := 0; len(w.pending) > 0; n++ {
		if n > 1000 {
			w.t.Fatalf("the broker never comes to rest: %s", show(w.pending))
		}
		w.land(0, w.pending[0].To, "")
	}
}

func (w *world) sample(id gnomon.VMID, usage, demand gnomon.Resources, starved [gnomon.NumResources]time.Duration) {
	g := w.vms[id]
	w.step(gnomon.Event{Sampled: &gnomon.Sample{VM: id, At: w.now, Interval: time.Second,
		Known: g.vm.Limits, Usage: usage, Demand: demand, Starved: starved, Allocation: g.limits}})
}

func (w *world) setCapacity(c gnomon.Resources) {
	w.capacity = c
	w.step(gnomon.Event{Capacity: &gnomon.Capacity{Total: c}})
}

func (w *world) setQuota(account string, q gnomon.Resources) {
	w.quotas[account] = q
	w.step(gnomon.Event{Quota: &gnomon.Quota{Account: account, Ahead: q}})
}

func (w *world) found(f gnomon.Found) {
	w.pending = slices.DeleteFunc(w.pending, func(a gnomon.Action) bool { return a.VM == f.VM.ID })
	for r := range gnomon.AllResources() {
		delete(w.issued, line{f.VM.ID, r})
	}
	w.vms[f.VM.ID] = &guest{vm: f.VM, policy: f.Policy, limits: f.Allocation}
	w.step(gnomon.Event{Found: &f})
}

// replay feeds the recorded events, after a trip through JSON, to a new broker.
func (w *world) replay() {
	b := broker.New(broker.Options{})
	for i, e := range w.log {
		var decoded gnomon.Event
		text := show(e)
		if err := json.Unmarshal([]byte(text), &decoded); err != nil {
			w.t.Fatalf("decode %s: %v", text, err)
		}
		if got := b.Step(decoded); show(got) != show(w.outcomes[i]) {
			w.t.Fatalf("event %d, %s, replayed:\n got %s\nwant %s", i, text, show(got), show(w.outcomes[i]))
		}
	}
}
