// Package hypervisortest is the suite that every hypervisor.Driver passes.
package hypervisortest

import (
	"context"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Subject is a driver under test and the means to act on its VMs from outside.
type Subject struct {
	Driver hypervisor.Driver

	// VM runs during the whole test, wants more than the Tight amounts of CPU,
	// disk and network all the time, and can be limited in every resource.
	VM gnomon.VMID

	// Bare runs during the whole test and has no disk and no network.
	Bare gnomon.VMID

	// Shadow runs during the whole test, as the shadow of VM and owned by the
	// account "acme".
	Shadow gnomon.VMID

	// Absent is an ID, well formed, that no VM has.
	Absent gnomon.VMID

	// Start starts a further VM; Stop, Suspend and Resume act on such a one.
	Start                 func(t *testing.T) gnomon.VMID
	Stop, Suspend, Resume func(t *testing.T, id gnomon.VMID)

	// Advance lets time pass for the VMs.
	Advance func(d time.Duration)

	// Amounts are limits that VM can be given, per resource, below what it was
	// found with, where that is limited. Tight is one that it feels.
	Amounts [gnomon.NumResources][]int64
	Tight   gnomon.Resources
}

// wait bounds everything that waits for the driver.
const wait = 20 * time.Second

// Run runs the suite. factory is called once.
func Run(t *testing.T, factory func(t *testing.T) Subject) {
	s := factory(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	original := s.machine(t, ctx, s.VM).Original
	for _, c := range []struct {
		name string
		test func(*testing.T, context.Context, Subject)
	}{
		{"Host", testHost},
		{"Machines", testMachines},
		{"CountersGrow", testCountersGrow},
		{"ReadLeavesGoneOut", testReadLeavesGoneOut},
		{"ReadOfNothing", testReadOfNothing},
		{"Glance", testGlance},
		{"ApplyReadsBack", testApplyReadsBack},
		{"LimitsHold", testLimitsHold},
		{"ApplyBeyondMaximum", testApplyBeyondMaximum},
		{"ApplyNonsense", testApplyNonsense},
		{"Unsupported", testUnsupported},
		{"Gone", testGone},
		{"Ended", testEnded},
		{"Note", testNote},
		{"Restore", testRestore},
		{"Watch", testWatch},
		{"Concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, ctx, s) })
	}
	t.Run("RestoreAtEnd", func(t *testing.T) {
		if err := s.Driver.Restore(ctx, s.VM, original); err != nil {
			t.Fatalf("Restore: %v", err)
		}
		if got := s.machine(t, ctx, s.VM).Original; got != original {
			t.Errorf("limits after Restore = %v, want those found first, %v", got, original)
		}
	})
	t.Run("Close", func(t *testing.T) { testClose(t, ctx, s) })
}

func (s Subject) machine(t *testing.T, ctx context.Context, id gnomon.VMID) hypervisor.Machine {
	t.Helper()
	if m, ok := s.find(t, ctx, id); ok {
		return m
	}
	t.Fatalf("VM %s is not listed", id)
	panic("unreachable")
}

func (s Subject) find(t *testing.T, ctx context.Context, id gnomon.VMID) (hypervisor.Machine, bool) {
	t.Helper()
	ms, err := s.Driver.Machines(ctx)
	if err != nil {
		t.Fatalf("Machines: %v", err)
	}
	for _, m := range ms {
		if m.ID == id {
			return m, true
		}
	}
	return hypervisor.Machine{}, false
}

// read returns the counters of a VM that must be there.
func (s Subject) read(t *testing.T, ctx context.Context, id gnomon.VMID) hypervisor.Counters {
	t.Helper()
	cs, err := s.Driver.Read(ctx, []gnomon.VMID{id})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	if len(cs) != 1 || cs[0].VM != id {
		t.Fatalf("Read(%s) = %v, want its counters alone", id, cs)
	}
	return cs[0]
}

// apply sets a limit that must hold exactly.
func (s Subject) apply(t *testing.T, ctx context.Context, r gnomon.Resource, amount int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	got, err := s.Driver.Apply(ctx, s.VM, r, amount, hypervisor.Terms{})
	if err != nil || got != amount {
		t.Fatalf("Apply(%s, %d) = %d, %v", r, amount, got, err)
	}
}
