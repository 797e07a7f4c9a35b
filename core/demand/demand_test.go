package demand_test

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
	"pgregory.net/rapid"
)

const mib = int64(1) << 20

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// quiet are counters of a VM with two vCPUs and 1 GiB, half of it used.
func quiet(at time.Duration) gnomon.Counters {
	return gnomon.Counters{
		VM: "web", At: epoch.Add(at), VCPUs: 2,
		Known:        gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network),
		MemoryActual: 1024 * mib, MemoryAvailable: 1000 * mib, MemoryUsable: 500 * mib, MemoryAt: epoch.Add(at),
		Allocation: gnomon.Limits{500, 1024 * mib, 10e6, 20e6},
	}
}

func TestNext(t *testing.T) {
	type figures struct {
		usage, demand int64
		starved       time.Duration
	}
	for _, c := range []struct {
		name   string
		r      gnomon.Resource
		change func(*gnomon.Counters)
		want   figures
	}{
		{"idle CPU", gnomon.CPU, func(*gnomon.Counters) {}, figures{}},
		{"CPU that waits", gnomon.CPU, func(c *gnomon.Counters) {
			c.CPUTime, c.CPUWait = 600*time.Millisecond, 900*time.Millisecond
		}, figures{300, 750, 900 * time.Millisecond}},
		{"CPU cannot want more than its vCPUs", gnomon.CPU, func(c *gnomon.Counters) {
			c.CPUTime, c.CPUWait = 3*time.Second, 9*time.Second
		}, figures{1500, 2000, 9 * time.Second}},
		{"memory with what the kernel keeps", gnomon.Memory, func(*gnomon.Counters) {},
			figures{524 * mib, 524*mib + 500*mib/19, 0}},
		{"memory nearly gone", gnomon.Memory, func(c *gnomon.Counters) { c.MemoryUsable = 40 * mib },
			figures{984 * mib, 984*mib + 960*mib/19, 2 * time.Second}},
		{"memory gone and swapping", gnomon.Memory, func(c *gnomon.Counters) {
			c.MemoryUsable, c.SwapIn, c.SwapOut, c.MajorFaults = 40*mib, 30*mib, 50*mib, 5120
		}, figures{984 * mib, 1084 * mib, 2 * time.Second}},
		{"swapping with plenty usable", gnomon.Memory, func(c *gnomon.Counters) { c.SwapOut = 40 * mib },
			figures{524 * mib, 564 * mib, 2 * time.Second}},
		{"the balloon moved after the guest told", gnomon.Memory, func(c *gnomon.Counters) { c.MemoryActual = 1500 * mib },
			figures{524 * mib, 524*mib + 500*mib/19, 0}},
		{"a guest that lies is held to what it was given", gnomon.Memory, func(c *gnomon.Counters) {
			c.MemoryAvailable, c.MemoryUsable = 1<<62, 0
		}, figures{1024 * mib, 1024*mib + 1024*mib/19, 2 * time.Second}},
		{"disk below its limit", gnomon.Disk, func(c *gnomon.Counters) { c.DiskBytes, c.DiskTime = 10e6, 9*time.Second },
			figures{5e6, 5e6, 0}},
		{"disk at its limit without a queue", gnomon.Disk, func(c *gnomon.Counters) { c.DiskBytes, c.DiskTime = 20e6, time.Second },
			figures{10e6, 10e6, 0}},
		{"disk at its limit with one writer that always waits", gnomon.Disk, func(c *gnomon.Counters) { c.DiskBytes, c.DiskTime = 20e6, 2*time.Second },
			figures{10e6, 12.5e6, 2 * time.Second}},
		{"disk at its limit with three under way", gnomon.Disk, func(c *gnomon.Counters) { c.DiskBytes, c.DiskTime = 18e6, 6*time.Second },
			figures{9e6, 15.75e6, 1800 * time.Millisecond}},
		{"disk with an endless queue", gnomon.Disk, func(c *gnomon.Counters) { c.DiskBytes, c.DiskTime = 20e6, time.Hour },
			figures{10e6, 20e6, 2 * time.Second}},
		{"disk without a limit", gnomon.Disk, func(c *gnomon.Counters) {
			c.DiskBytes, c.DiskTime, c.Allocation[gnomon.Disk] = 200e6, time.Hour, gnomon.Unlimited
		}, figures{100e6, 100e6, 0}},
		{"network", gnomon.Network, func(c *gnomon.Counters) { c.NetworkBytes = 4e6 }, figures{2e6, 2e6, 0}},
		{"network with a backlog", gnomon.Network, func(c *gnomon.Counters) { c.NetworkBytes, c.NetworkBacklog = 20e6, 1e6 },
			figures{10e6, 10.5e6, time.Second}},
		{"network that drops", gnomon.Network, func(c *gnomon.Counters) { c.NetworkBytes, c.NetworkDrops = 40e6, 1000 },
			figures{20e6, 20.75e6, 2 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m demand.Meter
			if _, ok := m.Next(quiet(0)); ok {
				t.Fatal("a sample of the first counters")
			}
			next := quiet(2 * time.Second)
			c.change(&next)
			s, ok := m.Next(next)
			if !ok || !s.Known.Has(c.r) {
				t.Fatalf("no sample, or the resource is not known: %+v", s)
			}
			if got := (figures{s.Usage[c.r], s.Demand[c.r], s.Starved[c.r]}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if s.Interval != 2*time.Second || !s.At.Equal(next.At) || s.VM != "web" {
				t.Errorf("sample of %v at %v of %s", s.Interval, s.At, s.VM)
			}
		})
	}
}

// Small operations use a disk up as bytes do.
func TestOperationsCount(t *testing.T) {
	for _, c := range []struct {
		name            string
		size            int64
		bytes, requests int64
		busy            time.Duration
		usage, demand   int64
		starved         time.Duration
	}{
		{"small ones", 16 << 10, 4e6, 1000, 0, 500 * 16 << 10, 500 * 16 << 10, 0},
		{"large ones", 16 << 10, 40e6, 1000, 0, 20e6, 20e6, 0},
		{"not counted", 0, 4e6, 1000, 9 * time.Second, 2e6, 2e6, 0},
		{"at their limit", 20_000, 4e6, 1000, 2 * time.Second, 10e6, 12.5e6, 2 * time.Second},
		{"without end", 1 << 20, 0, 1 << 62, 0, 1 << 50 / (1<<20 + 1) << 20, 1 << 50 / (1<<20 + 1) << 20, 0},
	} {
		m := demand.Meter{OperationSize: c.size}
		m.Next(quiet(0))
		next := quiet(2 * time.Second)
		next.DiskBytes, next.DiskRequests, next.DiskTime = c.bytes, c.requests, c.busy
		s, _ := m.Next(next)
		if s.Usage[gnomon.Disk] != c.usage || s.Demand[gnomon.Disk] != c.demand || s.Starved[gnomon.Disk] != c.starved || s.Operations != min(c.requests/2, 1<<50) {
			t.Errorf("%s: uses %d, wants %d, starved for %v at %d operations/s; want %d, %d, %v", c.name,
				s.Usage[gnomon.Disk], s.Demand[gnomon.Disk], s.Starved[gnomon.Disk], s.Operations, c.usage, c.demand, c.starved)
		}
		if b, ok := m.Between(quiet(0), next); !ok || b.Usage[gnomon.Disk] != c.usage {
			t.Errorf("%s: looked at between, it uses %d, want %d", c.name, b.Usage[gnomon.Disk], c.usage)
		}
	}
}

func TestUnlimitedAllocation(t *testing.T) {
	var m demand.Meter
	m.Next(quiet(0))
	c := quiet(time.Second)
	c.Allocation = gnomon.Limits{-1, -1, -1, -1}
	s, _ := m.Next(c)
	if want := (gnomon.Resources{2000, 1024 * mib, -1, -1}); s.Allocation != want {
		t.Errorf("allocation %v, want %v", s.Allocation, want)
	}
}

func TestStaleMemoryIsNotKnown(t *testing.T) {
	for _, c := range []struct {
		name string
		told time.Time
		want bool
	}{
		{"never told", time.Time{}, false},
		{"told five seconds ago", epoch.Add(5 * time.Second), true},
		{"told six seconds ago", epoch.Add(4 * time.Second), false},
	} {
		var m demand.Meter
		m.Next(quiet(9 * time.Second))
		next := quiet(10 * time.Second)
		next.MemoryAt = c.told
		if s, ok := m.Next(next); !ok || s.Known.Has(gnomon.Memory) != c.want || !s.Known.Has(gnomon.CPU) {
			t.Errorf("%s: known %b, want memory %v", c.name, s.Known, c.want)
		}
	}
}

func TestRestartedVMStartsOver(t *testing.T) {
	for name, change := range map[string]func(*gnomon.Counters){
		"cpu":     func(c *gnomon.Counters) { c.CPUTime = time.Second },
		"disk":    func(c *gnomon.Counters) { c.DiskBytes = 1 },
		"network": func(c *gnomon.Counters) { c.NetworkBytes = 1 },
		"another": func(c *gnomon.Counters) { c.VM = "db" },
	} {
		var m demand.Meter
		full := quiet(0)
		full.CPUTime, full.DiskBytes, full.NetworkBytes = time.Minute, 1e6, 1e6
		m.Next(full)
		full.At = epoch.Add(time.Second)
		change(&full)
		if s, ok := m.Next(full); ok {
			t.Errorf("%s: a sample across a restart: %+v", name, s)
		}
		full.At = full.At.Add(time.Second)
		if s, ok := m.Next(full); !ok || s.Usage[gnomon.CPU] != 0 {
			t.Errorf("%s: after a restart %v, %+v", name, ok, s)
		}
	}
}

func TestNoTimePassed(t *testing.T) {
	var m demand.Meter
	m.Next(quiet(time.Second))
	for _, at := range []time.Duration{time.Second, 0} {
		if _, ok := m.Next(quiet(at)); ok {
			t.Errorf("a sample up to %v from counters of 1s", at)
		}
	}
	if s, ok := m.Next(quiet(3 * time.Second)); !ok || s.Interval != 2*time.Second {
		t.Errorf("old counters changed the meter: %v, %v", ok, s.Interval)
	}
}

func draw(t *rapid.T) gnomon.Counters {
	small := rapid.Int64Range(0, 1<<40)
	any := rapid.OneOf(small, rapid.Int64())
	at := func() time.Time { return epoch.Add(time.Duration(small.Draw(t, "at"))) }
	return gnomon.Counters{
		VM: "web", At: at(), Known: gnomon.ResourceSet(rapid.IntRange(0, 15).Draw(t, "known")),
		VCPUs:   int(rapid.Int8().Draw(t, "vcpus")),
		CPUTime: time.Duration(any.Draw(t, "run")), CPUWait: time.Duration(any.Draw(t, "wait")),
		MemoryActual: any.Draw(t, "actual"), MemoryAvailable: any.Draw(t, "available"), MemoryUsable: any.Draw(t, "usable"),
		SwapIn: any.Draw(t, "in"), SwapOut: any.Draw(t, "out"), MajorFaults: any.Draw(t, "faults"), MemoryAt: at(),
		DiskBytes: any.Draw(t, "disk"), DiskTime: time.Duration(any.Draw(t, "time")),
		NetworkBytes: any.Draw(t, "net"), NetworkDrops: any.Draw(t, "drops"), NetworkBacklog: any.Draw(t, "backlog"),
		Allocation: gnomon.Limits{any.Draw(t, "a"), any.Draw(t, "b"), any.Draw(t, "c"), any.Draw(t, "d")},
	}
}

// Whatever the counters, a sample is sane: 0 ≤ usage ≤ demand, nothing for what
// is not known, starved not below 0.
func TestSamplesAreSane(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m demand.Meter
		for range rapid.IntRange(2, 8).Draw(t, "n") {
			s, ok := m.Next(draw(t))
			if !ok {
				continue
			}
			if s.Interval <= 0 {
				t.Fatalf("interval %v", s.Interval)
			}
			for r := range gnomon.AllResources() {
				u, d, st := s.Usage[r], s.Demand[r], s.Starved[r]
				if u < 0 || d < u || st < 0 || d > 1<<50 {
					t.Fatalf("%v: usage %d, demand %d, starved %v", r, u, d, st)
				}
				if !s.Known.Has(r) && (u != 0 || d != 0 || st != 0) {
					t.Fatalf("%v is not known, yet has %d, %d, %v", r, u, d, st)
				}
			}
		}
	})
}

// Splitting an interval in two changes nothing about the sum: the usage of the
// whole is the mean of the parts.
func TestSplittingAnInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := quiet(0), quiet(time.Second), quiet(3*time.Second)
		first, second := rapid.Int64Range(0, 1e9).Draw(t, "first"), rapid.Int64Range(0, 1e9).Draw(t, "second")
		b.DiskBytes, c.DiskBytes = first, first+second
		var whole, parts demand.Meter
		whole.Next(a)
		parts.Next(a)
		w, _ := whole.Next(c)
		p, _ := parts.Next(b)
		q, _ := parts.Next(c)
		sum := p.Usage[gnomon.Disk] + 2*q.Usage[gnomon.Disk]
		if diff := 3*w.Usage[gnomon.Disk] - sum; diff < -6 || diff > 6 {
			t.Fatalf("whole %d, parts %d and %d", w.Usage[gnomon.Disk], p.Usage[gnomon.Disk], q.Usage[gnomon.Disk])
		}
	})
}

// TestReservedIsLearnedWhateverThePhase has the guest tell its figures just
// before each whole second, with the time cut to seconds, while counters are
// read just after: the figures always seem older than the reading before.
func TestReservedIsLearnedWhateverThePhase(t *testing.T) {
	var m demand.Meter
	var last gnomon.Sample
	for i := range 8 {
		at := time.Duration(i)*time.Second + 20*time.Millisecond
		c := quiet(at)
		c.MemoryAt = epoch.Add(time.Duration(i-1) * time.Second) // told at i-1 s and 900 ms
		if i < 3 {
			// The balloon moves, and the figures are of before it did: the kernel
			// seems to manage all it was given.
			c.MemoryActual -= int64(3-i) * mib
			c.MemoryAvailable = c.MemoryActual
		}
		last, _ = m.Next(c)
	}
	if want := 524 * mib; last.Usage[gnomon.Memory] != want {
		t.Errorf("usage %d MiB, want %d: what the kernel keeps was not learned", last.Usage[gnomon.Memory]/mib, want/mib)
	}
}
