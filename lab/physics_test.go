package lab

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
)

func newLane(r gnomon.Resource, ceiling, limit float64) *lane {
	return &lane{r: r, ceiling: ceiling, limit: limit, target: limit, tally: &tally{counting: true}}
}

// run plays a lane up to a time, with the changes that end on the way.
func (l *lane) run(to time.Duration) {
	for {
		at, ok := l.settles()
		if !ok || at > to {
			break
		}
		l.advance(at)
		l.settle()
	}
	l.advance(to)
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6*max(1, math.Abs(want)) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestWorkIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom([]gnomon.Resource{gnomon.CPU, gnomon.Disk, gnomon.Network}).Draw(t, "resource")
		l := newLane(r, 4000, 1000)
		arrived, now := 0.0, time.Duration(0)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			demand := rapid.Float64Range(0, 4000).Draw(t, "demand")
			dt := time.Duration(rapid.Int64Range(1, 20e9).Draw(t, "dt"))
			l.want(demand)
			l.set(rapid.Float64Range(0, 4000).Draw(t, "limit"))
			before := l.served
			now += dt
			l.run(now)
			arrived += demand * dt.Seconds()
			if l.served < before {
				t.Fatalf("served falls from %v to %v", before, l.served)
			}
		}
		if got := l.served + l.backlog + l.tally.givenUp; math.Abs(got-arrived) > 1e-6*max(1, arrived) {
			t.Fatalf("served %v, waiting %v and given up %v are not what arrived, %v", l.served, l.backlog, l.tally.givenUp, arrived)
		}
		if l.backlog < 0 || l.backlog > patience*4000*(1+1e-9) {
			t.Fatalf("backlog %v", l.backlog)
		}
		if got := l.tally.demand + l.tally.surplus - l.tally.unmet; math.Abs(got-l.tally.allocation) > 1e-6*max(1, got) {
			t.Fatalf("demand, surplus and unmet make %v, allocation is %v", got, l.tally.allocation)
		}
	})
}

func TestUnmetWorkQueuesAndIsServedLater(t *testing.T) {
	l := newLane(gnomon.CPU, 4000, 1000)
	l.want(1500)
	l.run(2 * time.Second)
	near(t, "served", l.served, 2000)
	near(t, "backlog", l.backlog, 1000)
	near(t, "violation", l.tally.violation, 2)
	near(t, "unmet", l.tally.unmet, 1000)
	// Wanted is 1500 and a tenth of the backlog, 500 on average; 1000 was got.
	near(t, "wait", l.waited, 2*(1500+50-1000))
	l.want(500)
	l.run(6 * time.Second)
	near(t, "served", l.served, 2000+1000+2000)
	near(t, "backlog", l.backlog, 0)
	near(t, "violation", l.tally.violation, 2)
}

func TestWhatWaitsTooLongIsGivenUp(t *testing.T) {
	l := newLane(gnomon.Network, 1e9, 100)
	l.want(200)
	l.run(100 * time.Second)
	near(t, "backlog", l.backlog, patience*200)
	near(t, "given up", l.tally.givenUp, 100*100-patience*200)
}

func TestActuatorsTakeTheirTime(t *testing.T) {
	for r, delay := range map[gnomon.Resource]time.Duration{gnomon.CPU: cpuDelay, gnomon.Disk: shaperDelay, gnomon.Network: shaperDelay} {
		l := newLane(r, 4000, 1000)
		l.want(2000)
		l.set(3000)
		l.run(time.Second)
		near(t, r.String()+": violation", l.tally.violation, delay.Seconds())
		near(t, r.String()+": allocation", l.tally.allocation, 1000*delay.Seconds()+3000*(1-delay.Seconds()))
	}
	const gib = float64(1 << 30)
	l := newLane(gnomon.Memory, 16*gib, 2*gib)
	l.want(4 * gib)
	l.set(10 * gib) // at 1.6 GiB/s
	l.run(5 * time.Second)
	near(t, "memory: violation", l.tally.violation, 2/1.6)
	near(t, "memory: unmet", l.tally.unmet/gib, 2*(2/1.6)/2)
	near(t, "memory: limit", l.limit/gib, 10)
	l.set(1 * gib) // at 450 MiB/s, down to what is in use
	l.run(10 * time.Second)
	near(t, "memory: on its way down", l.limit/gib, 10-5*450.0/1024)
	l.run(60 * time.Second)
	near(t, "memory: down", l.limit/gib, 4)
	if l.moving || l.target != l.limit {
		t.Errorf("the balloon did not end at what is in use: target %v", l.target)
	}
}

func TestMemorySwapsThenKills(t *testing.T) {
	const gib = float64(1 << 30)
	l := newLane(gnomon.Memory, 8*gib, 2*gib)
	l.want(3 * gib)
	l.run(time.Second)
	near(t, "swapped out", l.out/gib, 1.1)
	near(t, "swapped in", l.in/gib, 0.1)
	if l.tally.kills != 0 {
		t.Errorf("killed with %v in swap", gib)
	}
	l.want(4.5 * gib) // swap holds 2
	l.run(2 * time.Second)
	l.run(3 * time.Second)
	if l.tally.kills != 1 {
		t.Errorf("killed %d times, want once", l.tally.kills)
	}
}

func TestDelaysAreBinned(t *testing.T) {
	l := newLane(gnomon.CPU, 4000, 1000)
	l.want(500)
	l.run(10 * time.Second)
	if d := l.tally.delayP99(); d != 0 {
		t.Errorf("delay %v without a queue", d)
	}
	l.want(2000)
	l.run(11 * time.Second) // a queue of 0 to 1000: half a second on average
	if d := l.tally.delayP99(); d < 0.5 || d > 0.5*delayGrowth {
		t.Errorf("delay %v, want about 0.5", d)
	}
}
