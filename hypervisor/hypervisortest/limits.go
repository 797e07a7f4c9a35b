package hypervisortest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func testApplyReadsBack(t *testing.T, ctx context.Context, s Subject) {
	for r := range gnomon.AllResources() {
		for _, amount := range s.Amounts[r] {
			s.apply(t, ctx, r, amount)
			if got := s.read(t, ctx, s.VM).Allocation[r]; got != amount {
				t.Errorf("allocation of %s read after Apply(%d) = %d", r, amount, got)
			}
		}
		if r == gnomon.Memory {
			continue
		}
		s.apply(t, ctx, r, hypervisor.Unlimited)
		if got := s.read(t, ctx, s.VM).Allocation[r]; got != hypervisor.Unlimited {
			t.Errorf("allocation of %s read after its removal = %d", r, got)
		}
	}
}

// testLimitsHold checks that what is limited is used no faster, whatever the VM
// wants, and that the wait shows where it can.
func testLimitsHold(t *testing.T, ctx context.Context, s Subject) {
	for _, r := range []gnomon.Resource{gnomon.CPU, gnomon.Disk, gnomon.Network} {
		s.apply(t, ctx, r, s.Tight[r])
		s.Advance(500 * time.Millisecond) // what was let through before
		a := s.read(t, ctx, s.VM)
		s.Advance(1500 * time.Millisecond)
		b := s.read(t, ctx, s.VM)
		rate := float64(used(b, r)-used(a, r)) / b.At.Sub(a.At).Seconds()
		most := 1.25 * float64(s.Tight[r])
		if r == gnomon.Disk { // what it has not used in a second it may use later
			most += float64(s.Tight[r]) / b.At.Sub(a.At).Seconds()
		}
		if rate > most {
			t.Errorf("%s used at %.0f %s, limited to %d", r, rate, r.Unit(), s.Tight[r])
		}
		if least := 0.3 * float64(s.Tight[r]); rate < least {
			t.Errorf("%s used at %.0f %s only, though %d are allowed", r, rate, r.Unit(), s.Tight[r])
		}
		if r == gnomon.CPU && b.CPUWait-a.CPUWait < 200*time.Millisecond {
			t.Errorf("CPU wait grew by %v only while limited", b.CPUWait-a.CPUWait)
		}
		if r == gnomon.Disk && b.DiskTime-a.DiskTime < 200*time.Millisecond {
			t.Errorf("disk time grew by %v only while limited", b.DiskTime-a.DiskTime)
		}
		if r == gnomon.Network && b.NetworkBacklog == 0 && b.NetworkDrops == a.NetworkDrops {
			t.Error("the shaper has no backlog and no drops while it limits")
		}
		s.apply(t, ctx, r, hypervisor.Unlimited)
	}
}

// used returns the use of a rate's resource so far, in unit-seconds.
func used(c hypervisor.Counters, r gnomon.Resource) int64 {
	switch r {
	case gnomon.CPU:
		return c.CPUTime.Milliseconds()
	case gnomon.Disk:
		return c.DiskBytes
	default:
		return c.NetworkBytes
	}
}

func testApplyBeyondMaximum(t *testing.T, ctx context.Context, s Subject) {
	m := s.machine(t, ctx, s.VM)
	got, err := s.Driver.Apply(ctx, s.VM, gnomon.Memory, m.Max[gnomon.Memory]+1<<30, hypervisor.Terms{})
	if err == nil {
		t.Error("Apply of more memory than the maximum succeeds")
	}
	if got != m.Original.Limits[gnomon.Memory] {
		t.Errorf("Apply of too much memory returned %d, the VM has %d", got, m.Original.Limits[gnomon.Memory])
	}
}

func testApplyNonsense(t *testing.T, ctx context.Context, s Subject) {
	for r := range gnomon.AllResources() {
		for _, amount := range []int64{0, -2} {
			if got, err := s.Driver.Apply(ctx, s.VM, r, amount, hypervisor.Terms{}); err == nil {
				t.Errorf("Apply(%s, %d) = %d without an error", r, amount, got)
			}
		}
	}
	if _, err := s.Driver.Apply(ctx, s.VM, gnomon.NumResources, 1, hypervisor.Terms{}); err == nil {
		t.Error("Apply of an unknown resource succeeds")
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := s.Driver.Apply(ended, s.VM, gnomon.CPU, 1000, hypervisor.Terms{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply with an ended context = %v", err)
	}
}

func testUnsupported(t *testing.T, ctx context.Context, s Subject) {
	for _, r := range []gnomon.Resource{gnomon.Disk, gnomon.Network} {
		if _, err := s.Driver.Apply(ctx, s.Bare, r, 1<<20, hypervisor.Terms{}); !errors.Is(err, hypervisor.ErrUnsupported) {
			t.Errorf("Apply(%s) to a VM without it = %v, want ErrUnsupported", r, err)
		}
	}
}

func testGone(t *testing.T, ctx context.Context, s Subject) {
	for r := range gnomon.AllResources() {
		if _, err := s.Driver.Apply(ctx, s.Absent, r, 1<<20, hypervisor.Terms{}); !errors.Is(err, hypervisor.ErrGone) {
			t.Errorf("Apply(%s) to an absent VM = %v, want ErrGone", r, err)
		}
	}
	if err := s.Driver.Restore(ctx, s.Absent, hypervisor.Original{}); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Restore of an absent VM = %v, want ErrGone", err)
	}
}

// testEnded uses a VM that was known and has ended.
func testEnded(t *testing.T, ctx context.Context, s Subject) {
	id := s.Start(t)
	m := s.machine(t, ctx, id)
	s.read(t, ctx, id)
	if _, err := s.Driver.Apply(ctx, id, gnomon.CPU, 500, hypervisor.Terms{}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	s.Stop(t, id)
	if _, err := s.Driver.Apply(ctx, id, gnomon.CPU, 400, hypervisor.Terms{}); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Apply to a VM that ended = %v, want ErrGone", err)
	}
	if err := s.Driver.Restore(ctx, id, m.Original); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Restore of a VM that ended = %v, want ErrGone", err)
	}
	if cs, err := s.Driver.Read(ctx, []gnomon.VMID{id, s.VM}); err != nil || len(cs) != 1 || cs[0].VM != s.VM {
		t.Errorf("Read with a VM that ended = %v, %v; want the other's alone", cs, err)
	}
}

func testRestore(t *testing.T, ctx context.Context, s Subject) {
	original := s.machine(t, ctx, s.VM).Original
	for r := range gnomon.AllResources() {
		s.apply(t, ctx, r, s.Amounts[r][0])
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for range 2 { // the second has nothing to do
		if err := s.Driver.Restore(bounded, s.VM, original); err != nil {
			t.Fatalf("Restore: %v", err)
		}
		if got := s.machine(t, ctx, s.VM).Original; got != original {
			t.Errorf("limits after Restore = %v, want %v", got, original)
		}
	}
}

// testConcurrent has every method called at once; each Apply must see the limit
// that it set, whatever the others do.
func testConcurrent(t *testing.T, ctx context.Context, s Subject) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var wg sync.WaitGroup
	for r := range gnomon.AllResources() {
		for _, amount := range s.Amounts[r][:2] {
			wg.Go(func() {
				if got, err := s.Driver.Apply(ctx, s.VM, r, amount, hypervisor.Terms{}); err != nil || got != amount {
					t.Errorf("Apply(%s, %d) = %d, %v", r, amount, got, err)
				}
			})
		}
	}
	for range 4 {
		wg.Go(func() {
			if cs, err := s.Driver.Read(ctx, []gnomon.VMID{s.VM, s.Absent, s.Bare}); err != nil || len(cs) != 2 {
				t.Errorf("Read = %d counters, %v", len(cs), err)
			}
		})
		wg.Go(func() {
			if _, err := s.Driver.Machines(ctx); err != nil {
				t.Errorf("Machines: %v", err)
			}
		})
	}
	wg.Wait()
	m := s.machine(t, ctx, s.VM)
	for r := range gnomon.AllResources() {
		found := false
		for _, amount := range s.Amounts[r] {
			found = found || m.Original.Limits[r] == amount
		}
		if !found {
			t.Errorf("%s ended at %d, which nobody set", r, m.Original.Limits[r])
		}
	}
}
