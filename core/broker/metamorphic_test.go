package broker_test

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

// twin is one stream of VMs and demand, told to two hosts: on one, proposals
// are made and heeded, on the other there are none.
type twin struct {
	t           *rapid.T
	with, alone *world
	seq         uint64
	usage       map[gnomon.VMID]gnomon.Resources // last
	demand      map[gnomon.VMID]gnomon.Resources // last

	// talking VMs tell what they use every second.
	talking bool
}

func newTwin(t *rapid.T, vms int, capacity gnomon.Resources, release bool) *twin {
	w := &twin{t: t, with: newWorld(t), alone: newWorld(t),
		usage: map[gnomon.VMID]gnomon.Resources{}, demand: map[gnomon.VMID]gnomon.Resources{}}
	w.both(func(h *world, _ bool) { h.setCapacity(capacity) })
	w.with.setQuota("acme", drawQuota(t))
	for _, id := range names[:vms] {
		f := drawVM(t, id)
		f.VM.Limits = 15
		for r := range gnomon.AllResources() { // found within what there is
			f.Allocation[r] = max(0, min(f.Allocation[r], f.VM.Ceiling[r], capacity[r]/int64(vms)))
			f.VM.Floor[r] = min(f.VM.Floor[r], f.Allocation[r])
		}
		w.demand[id] = gnomon.Resources{}
		w.both(func(h *world, shadow bool) {
			f.Policy.Shadow, f.Policy.Release = shadow, release
			h.found(f)
			if shadow {
				h.step(gnomon.Event{Attached: &gnomon.Attached{VM: id, Session: 1}})
			}
		})
	}
	return w
}

func (w *twin) both(do func(h *world, shadow bool)) {
	do(w.with, true)
	do(w.alone, false)
	w.with.settle()
	w.alone.settle()
}

// pass lets time go by, a second at most where the VMs talk.
func (w *twin) pass(d time.Duration) {
	w.both(func(h *world, _ bool) { h.now = h.now.Add(d) })
	if !w.talking {
		return
	}
	for _, id := range w.with.ids() {
		w.both(func(h *world, _ bool) {
			h.sample(id, w.usage[id], w.demand[id], [gnomon.NumResources]time.Duration{})
		})
	}
}

// propose has a VM's agent ask for something.
func (w *twin) propose(t *rapid.T) {
	id := rapid.SampledFrom(w.with.ids()).Draw(t, "vm")
	w.seq++
	p := drawProposal(t, id, 1, w.seq, w.with.now)
	w.with.step(gnomon.Event{Proposed: &p})
	w.with.settle()
}

// sample has a VM demand something else, after a second, and returns which.
func (w *twin) sample(t *rapid.T) gnomon.VMID {
	id := rapid.SampledFrom(w.with.ids()).Draw(t, "vm")
	usage, demand, starved := drawDemand(t)
	w.usage[id], w.demand[id] = usage, demand
	w.pass(time.Second)
	w.both(func(h *world, _ bool) { h.sample(id, usage, demand, starved) })
	return id
}

// run plays a random stream and calls check after each step of it.
func (w *twin) run(check func(id gnomon.VMID, r gnomon.Resource, with, alone int64)) {
	vm := rapid.SampledFrom(w.with.ids())
	w.t.Repeat(map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			for _, id := range w.with.ids() {
				for r := range gnomon.AllResources() {
					check(id, r, state(w.with.b, id, r).Allocated, state(w.alone.b, id, r).Allocated)
				}
			}
		},
		"propose": w.propose,
		"sample":  func(t *rapid.T) { w.sample(t) },
		"demand": func(t *rapid.T) {
			id := vm.Draw(t, "vm")
			_, levels, _ := drawDemand(t)
			w.both(func(h *world, _ bool) { h.step(gnomon.Event{Demanded: &gnomon.Demanded{VM: id, Levels: levels}}) })
		},
		"wait": func(t *rapid.T) {
			d := time.Duration(rapid.IntRange(0, 10000).Draw(t, "ms")) * time.Millisecond
			for w.talking && d > time.Second {
				d -= time.Second
				w.pass(time.Second)
			}
			w.pass(d)
			w.both(func(h *world, _ bool) { h.step(gnomon.Event{Tick: &gnomon.Tick{}}) })
		},
		"quota": func(t *rapid.T) {
			w.with.setQuota("acme", drawQuota(t))
			w.with.settle()
		},
		"reattach": func(t *rapid.T) {
			id := vm.Draw(t, "vm")
			w.with.step(gnomon.Event{Attached: &gnomon.Attached{VM: id, Session: 1}})
			w.with.settle()
		},
	})
}

// With room for everybody, no stream of proposals, however foolish, leaves any
// VM with less at any time than it has without a shadow, unless forecasts may
// release what it has.
func TestShadowsNeverHurtTheirVM(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var capacity gnomon.Resources
		for r := range gnomon.AllResources() {
			capacity[r] = 1 << 45
		}
		w := newTwin(t, 2, capacity, false)
		w.run(func(id gnomon.VMID, r gnomon.Resource, with, alone int64) {
			if with < alone {
				t.Fatalf("%s %v: %d with a shadow, %d without\n%s", id, r, with, alone, w.with.story())
			}
		})
	})
}

// Without room for everybody, proposals take nothing from what any VM's demand
// is given: what forecasts hold is as good as free to demand.
func TestForecastsTakeNothingFromDemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := drawCapacity(t)
		w := newTwin(t, 4, capacity, false)
		w.run(func(id gnomon.VMID, r gnomon.Resource, with, alone int64) {
			if r != gnomon.Memory && with < alone {
				t.Fatalf("%s %v: %d with proposals about, %d without\nWITH\n%s\nALONE\n%s", id, r, with, alone, w.with.story(), w.alone.story())
			}
		})
	})
}

// Memory that a forecast borrows is there again when its lender's demand comes,
// as long as it is told of; TestScripts has what becomes of a silent lender's.
func TestLoansAreThereForTheirLendersDemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := drawCapacity(t)
		w := newTwin(t, 2, capacity, false)
		w.talking = true
		w.run(func(id gnomon.VMID, r gnomon.Resource, with, alone int64) {
			if needs := w.demand[id][r]; r == gnomon.Memory && min(with, needs) < min(alone, needs) {
				t.Fatalf("%s has %d of the %d it needs with proposals about, %d without\nWITH\n%s\nALONE\n%s", id, with, needs, alone, w.with.story(), w.alone.story())
			}
		})
	})
}
