package broker_test

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

// What urgent samples see raises the base, never lowers it, and once a whole
// interval was sampled after them the base is what it had been without them:
// blips leave no trace, and what lasts is what regular samples see too.
func TestUrgentSamplesLeaveNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		with, without := newWorld(t), newWorld(t)
		both := func(do func(w *world)) {
			do(with)
			do(without)
			with.settle()
			without.settle()
		}
		var capacity gnomon.Resources
		for r := range gnomon.AllResources() {
			capacity[r] = 1 << 45
		}
		found := drawVM(t, "a")
		found.VM.Limits = 15
		both(func(w *world) { w.setCapacity(capacity); w.found(found) })
		quiet := 0 // regular samples in a row
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for r := range gnomon.AllResources() {
					has, had := state(with.b, "a", r).Base, state(without.b, "a", r).Base
					if r != gnomon.Memory && (has < had || quiet > 1 && has > had) {
						t.Fatalf("%v: a base of %d with urgent samples, the last %d samples ago, and of %d without", r, has, quiet, had)
					}
				}
			},
			"sample": func(t *rapid.T) {
				usage, demand, starved := drawDemand(t)
				both(func(w *world) {
					w.now = w.now.Truncate(time.Second).Add(time.Second)
					w.sample("a", usage, demand, starved)
				})
				quiet++
			},
			"urgent": func(t *rapid.T) {
				usage, demand, starved := drawDemand(t)
				window := time.Duration(rapid.IntRange(1, 100).Draw(t, "window")) * time.Millisecond
				with.now = with.now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "ms")) * time.Millisecond)
				with.step(gnomon.Event{Sampled: &gnomon.Sample{VM: "a", At: with.now, Interval: window, Urgent: true,
					Known: gnomon.SetOf(gnomon.CPU, gnomon.Disk, gnomon.Network), Usage: usage, Demand: demand, Starved: starved,
					Allocation: with.vms["a"].limits}})
				with.settle()
				without.now = with.now
				quiet = 0
			},
			"demand": func(t *rapid.T) {
				_, levels, _ := drawDemand(t)
				both(func(w *world) {
					w.step(gnomon.Event{Demanded: &gnomon.Demanded{VM: "a", Levels: levels}})
				})
			},
		})
	})
}
