package demand_test

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
	"pgregory.net/rapid"
)

// A burst of 2 ms that used up a quota shows whole, however long the VM was
// idle before.
func TestBetweenSeesShortBursts(t *testing.T) {
	for _, interval := range []time.Duration{2 * time.Millisecond, 50 * time.Millisecond} {
		from, to := quiet(0), quiet(interval)
		to.CPUTime, to.CPUWait = 2*time.Millisecond, interval-2*time.Millisecond
		to.DiskBytes, to.DiskTime = int64(10e6*interval.Seconds()), 4*interval
		to.NetworkBytes, to.NetworkBacklog = int64(20e6*interval.Seconds()), int64(2e6*interval.Seconds())
		s, ok := demand.Meter{}.Between(from, to)
		if !ok || !s.Urgent || s.Interval != interval {
			t.Fatalf("Between = %+v, %v", s, ok)
		}
		if want := (gnomon.Resources{1000, 524*mib + 500*mib/19, 20e6, 22e6}); s.Demand != want {
			t.Errorf("over %v: demand %v, want %v", interval, s.Demand, want)
		}
	}
}

// What is looked at ahead of time changes nothing about the samples in time.
func TestAheadLeavesTheIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var with, without demand.Meter
		c := quiet(0)
		with.Next(c)
		without.Next(c)
		for at := time.Second; at < 5*time.Second; at += time.Second {
			early := quiet(at - time.Duration(rapid.IntRange(1, 999).Draw(t, "ms"))*time.Millisecond)
			early.Known = gnomon.SetOf(gnomon.Memory)
			early.MemoryUsable = int64(rapid.IntRange(0, 900).Draw(t, "MiB")) * mib
			early.MemoryActual = int64(rapid.IntRange(500, 1024).Draw(t, "MiB")) * mib
			if s, ok := with.Ahead(early); !ok || !s.Urgent || s.Interval >= time.Second {
				t.Fatalf("Ahead = %+v, %v", s, ok)
			}
			c = quiet(at)
			c.CPUTime = at / 2
			got, _ := with.Next(c)
			want, _ := without.Next(c)
			if got != want || got.Urgent {
				t.Fatalf("got %+v\nwant %+v", got, want)
			}
		}
	})
}
