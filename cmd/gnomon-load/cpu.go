//go:build linux

package main

import (
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// generator runs one guest's schedule.
type generator struct {
	zero time.Time // when it began
	seed uint64
	out  *reporter
}

func (g *generator) now() time.Duration { return time.Since(g.zero) }

// waitFor sleeps until a point of the schedule; not at all if that has passed.
func (g *generator) waitFor(at time.Duration) { time.Sleep(at - g.now()) }

// cpu works items off in the order of their arrival. Arrivals do not wait for
// the work: an item's latency counts from when it was due, queueing included.
func (g *generator) cpu(iterations int64) {
	go g.tellBursts(gnomon.CPU)
	var sink uint64
	for at := range workload.Items(g.seed) {
		g.waitFor(at)
		if waited := g.now() - at; waited > workload.Patience {
			g.out.send(workload.Report{Kind: workload.GivenUp, At: at, Took: waited})
			continue
		}
		sink += work(sink, iterations)
		g.out.send(workload.Report{Kind: workload.Item, At: at, Took: g.now() - at})
	}
}

// tellBursts reports the onsets of bursts whose work something else does.
func (g *generator) tellBursts(r gnomon.Resource) {
	for b := range workload.Bursts(g.seed, r) {
		g.waitFor(b.Start)
		g.out.send(workload.Report{Kind: workload.Onset, At: b.Start, Resource: r})
		g.waitFor(b.End())
		g.out.send(workload.Report{Kind: workload.Over, At: b.Start, Took: g.now() - b.Start, Resource: r})
	}
}

// work burns a fixed amount of CPU: iterations of an xorshift step, which no
// compiler can shorten and which touches no memory.
func work(seed uint64, iterations int64) uint64 {
	x := seed | 1
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// calibrate returns how many iterations take workload.ItemWork on a whole core:
// the best of several tries, as disturbance only slows one down.
func calibrate() int64 {
	const (
		tries = 40
		chunk = int64(1 << 18)
	)
	best := time.Duration(1 << 62)
	var sink uint64
	for range tries {
		begun := time.Now()
		sink += work(sink, chunk)
		best = min(best, time.Since(begun))
	}
	// The sum is used so that the loop above cannot be dropped.
	return chunk*int64(workload.ItemWork)/int64(max(best, 1)) + int64(sink&1)
}
