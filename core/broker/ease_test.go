package broker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

// Where forecasts may release what a VM has, no stream of proposals, however
// foolish, leaves it short of what it is seen to demand, as far as it would have
// that without a shadow; and when they end, so does what they released.
func TestReleasesEndWithDemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var capacity gnomon.Resources
		for r := range gnomon.AllResources() {
			capacity[r] = 1 << 45
		}
		w := newTwin(t, 2, capacity, true)
		least := func(why string, of func(id gnomon.VMID, r gnomon.Resource, alone int64) int64) {
			for _, id := range w.with.ids() {
				for r := range gnomon.AllResources() {
					with, alone := state(w.with.b, id, r).Allocated, state(w.alone.b, id, r).Allocated
					if want := of(id, r, alone); with < want {
						t.Fatalf("%s: %s %v has %d, want %d of the %d without a shadow\n%s", why, id, r, with, want, alone, w.with.story())
					}
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"propose": w.propose,
			"sample": func(t *rapid.T) {
				id := w.sample(t)
				least("after a sample", func(other gnomon.VMID, r gnomon.Resource, alone int64) int64 {
					if other != id {
						return 0
					}
					return min(alone, w.demand[id][r])
				})
			},
			"end": func(t *rapid.T) {
				switch rapid.SampledFrom([]string{"silence", "detach", "policy"}).Draw(t, "why") {
				case "silence":
					w.talking = true
					for range 3 {
						w.pass(time.Second)
					}
					w.talking = false
				case "detach":
					for _, id := range w.with.ids() {
						w.both(func(h *world, _ bool) {
							h.step(gnomon.Event{Detached: &gnomon.Detached{VM: id, Session: 1}})
							h.settle()
							h.step(gnomon.Event{Attached: &gnomon.Attached{VM: id, Session: 1}})
						})
					}
				case "policy":
					for _, id := range w.with.ids() {
						w.both(func(h *world, shadow bool) {
							g := h.vms[id]
							g.policy.Release = false
							change := gnomon.PolicyChanged{VM: id, Account: g.vm.Account, Policy: g.policy, Limits: g.vm.Limits, Floor: g.vm.Floor, Ceiling: g.vm.Ceiling}
							h.step(gnomon.Event{Policy: &change})
							h.settle()
							change.Policy.Release, g.policy.Release = true, true
							h.step(gnomon.Event{Policy: &change})
						})
					}
				}
				least("after the end", func(id gnomon.VMID, r gnomon.Resource, alone int64) int64 {
					return min(alone, state(w.alone.b, id, r).Base)
				})
			},
		})
	})
}

// An agent that says that next to nothing is enough is not believed for long.
func TestForecastsThatFailAreDoubted(t *testing.T) {
	w := newWorld(t)
	w.setCapacity(gnomon.Resources{gnomon.CPU: 8000})
	w.found(gnomon.Found{VM: gnomon.VM{ID: "a", Limits: gnomon.SetOf(gnomon.CPU),
		Floor: gnomon.Resources{gnomon.CPU: 100}, Ceiling: gnomon.Resources{gnomon.CPU: 4000}},
		Policy:     gnomon.Policy{Shadow: true, HeadroomPercent: 20, Hold: 10 * time.Second, Release: true},
		Allocation: gnomon.Resources{gnomon.CPU: 1200}})
	w.step(gnomon.Event{Attached: &gnomon.Attached{VM: "a", Session: 1}})
	const minutes = 10
	short := 0
	for i := range uint64(60 * minutes) {
		w.now = w.now.Add(time.Second)
		if w.vms["a"].limits[gnomon.CPU] < 1000 {
			short++
		}
		w.sample("a", gnomon.Resources{gnomon.CPU: 900}, gnomon.Resources{gnomon.CPU: 1000}, [gnomon.NumResources]time.Duration{})
		w.settle()
		w.step(gnomon.Event{Proposed: &gnomon.Proposal{VM: "a", Session: 1, Seq: i + 1, At: w.now,
			Wants: []gnomon.Want{{Resource: gnomon.CPU, Enough: 1}}}})
		w.settle()
	}
	if short == 0 || short > 8*minutes {
		t.Errorf("short in %d of %d intervals, want some and at most %d", short, 60*minutes, 8*minutes)
	}
}

// A forecast that was too low for too long is heeded where it asks for more.
func TestForecastsInDoubtMayAskForMore(t *testing.T) {
	w := newWorld(t)
	w.setCapacity(gnomon.Resources{gnomon.CPU: 8000})
	w.found(gnomon.Found{VM: gnomon.VM{ID: "a", Limits: gnomon.SetOf(gnomon.CPU), Ceiling: gnomon.Resources{gnomon.CPU: 4000}},
		Policy: gnomon.Policy{Shadow: true, HeadroomPercent: 20, Hold: 10 * time.Second, Release: true}})
	w.step(gnomon.Event{Attached: &gnomon.Attached{VM: "a", Session: 1}})
	propose := func(seq uint64, enough int64) {
		w.now = w.now.Add(time.Second)
		level := gnomon.Resources{gnomon.CPU: 1000}
		w.sample("a", level, level, [gnomon.NumResources]time.Duration{})
		w.settle()
		w.step(gnomon.Event{Proposed: &gnomon.Proposal{VM: "a", Session: 1, Seq: seq, At: w.now,
			Wants: []gnomon.Want{{Resource: gnomon.CPU, Enough: enough}}}})
		w.settle()
	}
	for seq := range uint64(20) {
		propose(seq+1, 1)
	}
	if got := w.vms["a"].limits[gnomon.CPU]; got < 1000 {
		t.Fatalf("allocated %d after 20 forecasts that were too low, want what the standard path holds", got)
	}
	if propose(21, 3000); w.vms["a"].limits[gnomon.CPU] < 3000 {
		t.Errorf("allocated %d, want the 3000 that the forecast asks for", w.vms["a"].limits[gnomon.CPU])
	}
}

// What the standard path would hold follows demand alone, also while demand
// exceeds what a forecast said was enough.
func TestReleasesLeaveTheBaseAlone(t *testing.T) {
	var bases [2][]int64
	for i, release := range []bool{true, false} {
		w := newWorld(t)
		w.setCapacity(gnomon.Resources{gnomon.CPU: 8000})
		w.found(gnomon.Found{VM: gnomon.VM{ID: "a", Limits: gnomon.SetOf(gnomon.CPU), Ceiling: gnomon.Resources{gnomon.CPU: 1100}},
			Policy: gnomon.Policy{Shadow: true, HeadroomPercent: 100, Release: release}})
		w.step(gnomon.Event{Attached: &gnomon.Attached{VM: "a", Session: 1}})
		for seq, demand := range []int64{500, 200, 600} {
			w.now = w.now.Add(time.Second)
			level := gnomon.Resources{gnomon.CPU: demand}
			w.sample("a", level, level, [gnomon.NumResources]time.Duration{})
			w.settle()
			bases[i] = append(bases[i], state(w.b, "a", gnomon.CPU).Base)
			w.step(gnomon.Event{Proposed: &gnomon.Proposal{VM: "a", Session: 1, Seq: uint64(seq) + 1, At: w.now,
				Wants: []gnomon.Want{{Resource: gnomon.CPU, Enough: 1}}}})
			w.settle()
		}
	}
	if !slices.Equal(bases[0], bases[1]) {
		t.Errorf("bases of %v where forecasts release, %v where not", bases[0], bases[1])
	}
}
