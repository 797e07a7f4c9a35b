package simulated_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/hypervisortest"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

func TestConformance(t *testing.T) {
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Subject {
		d := simulated.New(simulated.Options{AdvanceOnApply: true})
		return hypervisortest.Simulated(t, d, d)
	})
}

func add(t *testing.T, d *simulated.Driver, s simulated.Spec) {
	t.Helper()
	if err := d.AddVM(s); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, d *simulated.Driver, id gnomon.VMID) hypervisor.Counters {
	t.Helper()
	cs, err := d.Read(t.Context(), []gnomon.VMID{id})
	if err != nil || len(cs) != 1 {
		t.Fatalf("Read = %v, %v", cs, err)
	}
	return cs[0]
}

// within reports whether got is within one percent of want.
func within(got, want float64) bool { return math.Abs(got-want) <= 0.01*math.Abs(want) }

func TestThrottledCPUWaits(t *testing.T) {
	d := simulated.New(simulated.Options{})
	add(t, d, simulated.Spec{ID: "a", VCPUs: 2, Demand: [4]simulated.Demand{gnomon.CPU: simulated.Constant(1000)}})
	if _, err := d.Apply(t.Context(), "a", gnomon.CPU, 400, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	d.Advance(time.Second)
	c := read(t, d, "a")
	if !within(c.CPUTime.Seconds(), 0.4) {
		t.Errorf("CPU time = %v of 1 s at 400 millicores, want 0.4 s", c.CPUTime)
	}
	// Of the two vCPUs both soon have work; 0.4 of them run.
	if c.CPUWait < 1500*time.Millisecond || c.CPUWait > 1600*time.Millisecond {
		t.Errorf("CPU wait = %v, want nearly 1.6 s", c.CPUWait)
	}
	if _, err := d.Apply(t.Context(), "a", gnomon.CPU, hypervisor.Unlimited, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	d.Advance(time.Second)
	totals, err := d.Totals("a")
	if err != nil {
		t.Fatal(err)
	}
	if !within(totals.Served[gnomon.CPU], 2000) {
		t.Errorf("served %.0f millicore-seconds in 2 s, want all 2000: the backlog too", totals.Served[gnomon.CPU])
	}
}

func TestMemoryMovesAtFiniteSpeed(t *testing.T) {
	d := simulated.New(simulated.Options{})
	add(t, d, simulated.Spec{ID: "a", Memory: 1 << 30})
	if err := d.Begin("a", gnomon.Memory, 574<<20); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after   time.Duration
		want    int64
		settled bool
	}{
		{500 * time.Millisecond, 799 << 20, false},
		{490 * time.Millisecond, 0, false},
		{20 * time.Millisecond, 574 << 20, true},
	} {
		d.Advance(c.after)
		got, settled, err := d.Settled("a", gnomon.Memory)
		if err != nil || settled != c.settled || c.want > 0 && !within(float64(got), float64(c.want)) {
			t.Errorf("after %v more: %d MiB, settled %v, %v; want %d MiB, %v", c.after, got>>20, settled, err, c.want>>20, c.settled)
		}
	}
}

func TestGuestKeepsWhatItUses(t *testing.T) {
	d := simulated.New(simulated.Options{AdvanceOnApply: true})
	add(t, d, simulated.Spec{ID: "a", Memory: 1 << 30, Demand: [4]simulated.Demand{gnomon.Memory: simulated.Constant(600 << 20)}})
	got, err := d.Apply(t.Context(), "a", gnomon.Memory, 300<<20, hypervisor.Terms{})
	if err == nil || got < 600<<20 {
		t.Errorf("Apply below what is used = %d MiB, %v; want an error and at least 600 MiB", got>>20, err)
	}
	d.Advance(2 * time.Second)
	if c := read(t, d, "a"); c.Allocation[gnomon.Memory] != got || c.MemoryUsable != 0 {
		t.Errorf("later %d MiB, usable %d; want the size reached, all used", c.Allocation[gnomon.Memory]>>20, c.MemoryUsable)
	}
}

func TestShortageSwaps(t *testing.T) {
	d := simulated.New(simulated.Options{})
	grow := func(since time.Duration) int64 { return int64(since.Seconds() * float64(100<<20)) }
	add(t, d, simulated.Spec{ID: "a", Memory: 1 << 30, Limits: gnomon.Resources{gnomon.Memory: 256 << 20},
		Demand: [4]simulated.Demand{gnomon.Memory: grow}})
	d.Advance(2 * time.Second)
	if c := read(t, d, "a"); c.SwapOut != 0 || c.MemoryUsable == 0 {
		t.Errorf("with memory left: swapped %d, usable %d", c.SwapOut, c.MemoryUsable)
	}
	d.Advance(2 * time.Second)
	if c := read(t, d, "a"); c.SwapOut == 0 || c.MemoryUsable != 0 {
		t.Errorf("with too little: swapped %d, usable %d", c.SwapOut, c.MemoryUsable)
	}
	if totals, _ := d.Totals("a"); totals.Short[gnomon.Memory] == 0 {
		t.Error("the shortage is not in the totals")
	}
}

func TestMemoryComesFromTheHost(t *testing.T) {
	total := gnomon.Resources{gnomon.CPU: 1000, gnomon.Memory: 1 << 30}
	d := simulated.New(simulated.Options{Total: total, AdvanceOnApply: true})
	half := gnomon.Resources{gnomon.Memory: 512 << 20}
	add(t, d, simulated.Spec{ID: "a", Memory: 1 << 30, Limits: half})
	add(t, d, simulated.Spec{ID: "b", Memory: 1 << 30, Limits: half})
	if got, err := d.Apply(t.Context(), "a", gnomon.Memory, 768<<20, hypervisor.Terms{}); err == nil {
		t.Errorf("Apply of memory that the other VM has = %d MiB", got>>20)
	}
	if _, err := d.Apply(t.Context(), "b", gnomon.Memory, 256<<20, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Apply(t.Context(), "a", gnomon.Memory, 768<<20, hypervisor.Terms{}); err != nil || got != 768<<20 {
		t.Errorf("Apply of memory that was freed = %d MiB, %v", got>>20, err)
	}
}

func TestHostIsShared(t *testing.T) {
	total := gnomon.Resources{gnomon.CPU: 3000, gnomon.Memory: 8 << 30}
	d := simulated.New(simulated.Options{Total: total})
	for id, want := range map[gnomon.VMID]int64{"small": 500, "big": 2000, "huge": 4000} {
		add(t, d, simulated.Spec{ID: id, VCPUs: 4, Demand: [4]simulated.Demand{gnomon.CPU: simulated.Constant(want)}})
	}
	d.Advance(10 * time.Second)
	for id, want := range map[gnomon.VMID]float64{"small": 5, "big": 12.5, "huge": 12.5} {
		if c := read(t, d, id); !within(c.CPUTime.Seconds(), want) {
			t.Errorf("%s got %v of CPU time in 10 s, want %v s", id, c.CPUTime, want)
		}
	}
}

func TestWaitingApplyFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := simulated.New(simulated.Options{})
		add(t, d, simulated.Spec{ID: "a", Memory: 1 << 30})
		done := make(chan string, 1)
		apply := func(ctx context.Context, amount int64) {
			got, err := d.Apply(ctx, "a", gnomon.Memory, amount, hypervisor.Terms{})
			done <- fmt.Sprint(got>>20, err == nil)
		}
		go apply(t.Context(), 574<<20)
		synctest.Wait()
		d.Advance(900 * time.Millisecond)
		synctest.Wait()
		if len(done) != 0 {
			t.Fatalf("Apply ended early: %s", <-done)
		}
		d.Advance(200 * time.Millisecond)
		if got := <-done; got != "574 true" {
			t.Errorf("Apply = %s", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go apply(ctx, 124<<20)
		synctest.Wait()
		d.Advance(500 * time.Millisecond)
		if got := <-done; got != "349 false" {
			t.Errorf("Apply with too little time = %s, want what was reached", got)
		}
		go apply(t.Context(), 124<<20)
		synctest.Wait()
		if err := d.RemoveVM("a"); err != nil {
			t.Fatal(err)
		}
		if got := <-done; got != "0 false" {
			t.Errorf("Apply to a VM that ends = %s", got)
		}
	})
}

// TestPhysics checks what must hold for every script and sequence of limits.
func TestPhysics(t *testing.T) {
	rates := []gnomon.Resource{gnomon.CPU, gnomon.Disk, gnomon.Network}
	rapid.Check(t, func(t *rapid.T) {
		total := gnomon.Resources{2000, 4 << 30, 50 << 20, 50 << 20}
		d := simulated.New(simulated.Options{Total: total})
		n := rapid.IntRange(1, 4).Draw(t, "vms")
		ids := make([]gnomon.VMID, n)
		for i := range ids {
			ids[i] = gnomon.VMID(fmt.Sprint(i))
			spec := simulated.Spec{ID: ids[i], VCPUs: rapid.IntRange(1, 3).Draw(t, "vcpus")}
			for r := range gnomon.AllResources() {
				a, b := rapid.Int64Range(0, total[r]).Draw(t, "a"), rapid.Int64Range(0, total[r]).Draw(t, "b")
				spec.Demand[r] = func(since time.Duration) int64 {
					if since/(500*time.Millisecond)%2 == 0 {
						return a
					}
					return b
				}
			}
			if err := d.AddVM(spec); err != nil {
				t.Fatal(err)
			}
		}
		before, err := d.Read(context.Background(), ids)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			r := gnomon.Resource(rapid.IntRange(0, 3).Draw(t, "resource"))
			_ = d.Begin(rapid.SampledFrom(ids).Draw(t, "id"), r, rapid.Int64Range(1, 1<<30).Draw(t, "amount"))
			const dt = 250 * time.Millisecond
			d.Advance(dt)
			after, err := d.Read(context.Background(), ids)
			if err != nil {
				t.Fatal(err)
			}
			sum := gnomon.Resources{}
			for i := range after {
				a, b := before[i], after[i]
				used := gnomon.Resources{(b.CPUTime - a.CPUTime).Milliseconds(), b.MemoryActual, b.DiskBytes - a.DiskBytes, b.NetworkBytes - a.NetworkBytes}
				for _, r := range rates {
					limit := b.Allocation[r]
					if limit != hypervisor.Unlimited && float64(used[r]) > float64(limit)*dt.Seconds()+2 {
						t.Fatalf("%s of VM %d: used %d in %v, limit %d", r, i, used[r], dt, limit)
					}
					if used[r] < 0 {
						t.Fatalf("%s of VM %d went back by %d", r, i, -used[r])
					}
				}
				sum = sum.Add(used)
				if b.CPUWait < a.CPUWait || b.DiskTime < a.DiskTime || b.NetworkDrops < a.NetworkDrops || b.SwapIn < a.SwapIn {
					t.Fatalf("a counter of VM %d went back: %+v, then %+v", i, a, b)
				}
				truth, _ := d.Totals(ids[i])
				for _, r := range rates {
					if truth.Served[r] > truth.Demanded[r]*(1+1e-9) {
						t.Fatalf("%s of VM %d: served %v of %v", r, i, truth.Served[r], truth.Demanded[r])
					}
				}
			}
			for _, r := range rates {
				if float64(sum[r]) > float64(total[r])*dt.Seconds()+4 {
					t.Fatalf("%s: all used %d in %v, the host has %d", r, sum[r], dt, total[r])
				}
			}
			if sum[gnomon.Memory] > total[gnomon.Memory] {
				t.Fatalf("memory: all have %d, the host has %d", sum[gnomon.Memory], total[gnomon.Memory])
			}
			before = after
		}
	})
}

func BenchmarkAdvance(b *testing.B) {
	d := simulated.New(simulated.Options{})
	for i := range 30 {
		c := simulated.Constant(100)
		if err := d.AddVM(simulated.Spec{ID: gnomon.VMID(fmt.Sprint(i)), Demand: [4]simulated.Demand{c, c, c, c}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		d.Advance(time.Second)
	}
}
