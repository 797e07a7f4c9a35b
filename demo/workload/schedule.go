// Package workload is what the demonstration's guests do, as a function of a
// seed alone: when bursts start, when work items arrive, how much memory is
// grown to. It also defines the lines in which a guest reports. It is pure, so
// that two guests with the same seed do the same however fast each one runs.
package workload

import (
	"iter"
	"math/rand/v2"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// Burst is a span of load on one resource.
type Burst struct {
	// Start and Length are counted from when the guest was told to go.
	Start, Length time.Duration

	// Foreseeable is false for those that follow no pattern.
	Foreseeable bool
}

// End returns when the burst ends.
func (b Burst) End() time.Duration { return b.Start + b.Length }

// pattern is a train of bursts: one each period, moved by up to jitter either
// way. The grid itself does not drift, as with jobs that a clock starts.
type pattern struct {
	first, period, jitter, length time.Duration

	// surprises is the share of periods, 0 to 1, with a second burst at a time
	// that nothing foretells, in the gap that the pattern leaves.
	surprises float64
}

// The periods are chosen such that 180 seconds hold at least ten bursts of
// each kind, and that they coincide in ever new ways.
var patterns = [gnomon.NumResources]pattern{
	gnomon.CPU:     {first: 5 * time.Second, period: 12 * time.Second, jitter: time.Second, length: 4 * time.Second, surprises: 0.25},
	gnomon.Memory:  {first: 8 * time.Second, period: 16 * time.Second, jitter: time.Second, length: MemoryGrow + MemoryHold},
	gnomon.Disk:    {first: 3 * time.Second, period: 15 * time.Second, jitter: time.Second, length: 4 * time.Second},
	gnomon.Network: {first: 9 * time.Second, period: 14 * time.Second, jitter: time.Second, length: 4 * time.Second},
}

// What a burst asks for. Under emulation interrupts, faults and frames cost CPU
// too: the figures are such that coinciding bursts fit into 0.7 of a core, below
// the ceiling of a whole one that the demonstration gives.
const (
	// ItemWork is how long one CPU work item takes on a whole core.
	ItemWork = 40 * time.Millisecond
	// ItemSpacing is the mean time between items in a burst: a third of a core,
	// half of one with what else a burst costs under emulation. The rest of the
	// ceiling is there to work off what waited.
	ItemSpacing = 120 * time.Millisecond
	// Patience is how long an item waits at most: then it is given up, as a
	// client would, so that a queue does not outlive what caused it.
	Patience = 4 * time.Second
	// IdleSpacing is the time between items outside bursts.
	IdleSpacing = time.Second

	// MemoryGrow is how long a guest takes to grow by MemoryBytes, in
	// MemorySteps; MemoryHold is how long it then holds what it has.
	MemoryGrow  = 6 * time.Second
	MemoryHold  = 4 * time.Second
	MemoryBytes = 120 << 20
	MemorySteps = 12

	// DiskRate and NetworkRate are in bytes per second.
	DiskRate    = 8 << 20
	NetworkRate = 2 << 20
	// DiskChunk is the size of one write, in bytes.
	DiskChunk = 256 << 10
)

// Bursts returns the bursts of one resource in order of their start, without
// end. They do not overlap.
func Bursts(seed uint64, r gnomon.Resource) iter.Seq[Burst] {
	p := patterns[r]
	return func(yield func(Burst) bool) {
		rng := random(seed, uint64(r))
		for at := p.first; ; at += p.period {
			b := Burst{Start: at + spread(rng, p.jitter), Length: p.length, Foreseeable: true}
			if !yield(b) {
				return
			}
			surprise, where := rng.Float64() < p.surprises, rng.Float64()
			if !surprise {
				continue
			}
			if b, ok := p.surprise(at, where); ok && !yield(b) {
				return
			}
		}
	}
}

// surprise returns a burst in the gap after the burst that was due at the given
// time, clear of both neighbours wherever jitter moved them. where is its place
// in the room there is, 0 to 1.
func (p pattern) surprise(due time.Duration, where float64) (Burst, bool) {
	const margin = 500 * time.Millisecond
	length := p.length / 2
	from := due + p.jitter + p.length + margin
	room := due + p.period - p.jitter - margin - length - from
	if room < 0 {
		return Burst{}, false
	}
	return Burst{Start: from + time.Duration(where*float64(room)), Length: length}, true
}

// Items returns when CPU work items arrive, in order, without end.
func Items(seed uint64) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		rng := random(seed, 1<<8)
		idle := IdleSpacing
		for b := range Bursts(seed, gnomon.CPU) {
			for ; idle < b.Start; idle += IdleSpacing {
				if !yield(idle) {
					return
				}
			}
			for at := b.Start; at < b.End(); at += ItemSpacing + spread(rng, ItemSpacing/5) {
				if !yield(at) {
					return
				}
			}
			idle = b.End().Truncate(IdleSpacing) + IdleSpacing
		}
	}
}

// random returns the source of one stream of the seed. Streams are apart, so
// that a change to one kind of load leaves the others as they were.
func random(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// spread returns a duration between -by and +by.
func spread(rng *rand.Rand, by time.Duration) time.Duration {
	return time.Duration((rng.Float64()*2 - 1) * float64(by))
}
