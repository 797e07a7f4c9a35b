package faulty_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/faulty"
	"github.com/gnomon-vm/gnomon/hypervisor/hypervisortest"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

func TestConformanceWithoutFaults(t *testing.T) {
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Subject {
		host := simulated.New(simulated.Options{AdvanceOnApply: true})
		return hypervisortest.Simulated(t, faulty.Wrap(host), host)
	})
}

func wrap(t *testing.T, faults ...faulty.Fault) (*faulty.Driver, *simulated.Driver) {
	t.Helper()
	host := simulated.New(simulated.Options{AdvanceOnApply: true})
	for _, id := range []gnomon.VMID{"a", "b"} {
		if err := host.AddVM(simulated.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	return faulty.Wrap(host, faults...), host
}

func TestApplyFailsAsCounted(t *testing.T) {
	d, _ := wrap(t, faulty.Fault{
		Op: faulty.Apply, VM: "a", Resource: gnomon.CPU, OfResource: true, Nth: 2, Times: 2, Error: "broken",
	})
	for i, c := range []struct {
		vm   gnomon.VMID
		r    gnomon.Resource
		fail bool
	}{
		{"a", gnomon.CPU, false},
		{"b", gnomon.CPU, false},
		{"a", gnomon.Disk, false},
		{"a", gnomon.CPU, true},
		{"a", gnomon.CPU, true},
		{"a", gnomon.CPU, false},
	} {
		_, err := d.Apply(t.Context(), c.vm, c.r, 500, hypervisor.Terms{})
		if errors.Is(err, faulty.ErrInjected) != c.fail {
			t.Errorf("call %d: Apply(%s, %s) = %v, want failure %v", i, c.vm, c.r, err, c.fail)
		}
	}
}

func TestErrorBeforeAndAfter(t *testing.T) {
	d, host := wrap(t,
		faulty.Fault{Op: faulty.Apply, VM: "a", Error: "before"},
		faulty.Fault{Op: faulty.Apply, VM: "b", LateError: "after"})
	for id, want := range map[gnomon.VMID]int64{"a": hypervisor.Unlimited, "b": 700} {
		if _, err := d.Apply(t.Context(), id, gnomon.CPU, 700, hypervisor.Terms{}); !errors.Is(err, faulty.ErrInjected) {
			t.Errorf("Apply(%s) = %v", id, err)
		}
		if got, _, _ := host.Settled(id, gnomon.CPU); got != want {
			t.Errorf("limit of %s is then %d, want %d", id, got, want)
		}
	}
}

func TestObservedDiffers(t *testing.T) {
	d, _ := wrap(t,
		faulty.Fault{Op: faulty.Apply, Observed: -50},
		faulty.Fault{Op: faulty.Read, VM: "b", Resource: gnomon.CPU, Observed: 7, Times: -1})
	if got, err := d.Apply(t.Context(), "b", gnomon.CPU, 300, hypervisor.Terms{}); err != nil || got != 250 {
		t.Errorf("Apply = %d, %v; want 250", got, err)
	}
	cs, err := d.Read(t.Context(), []gnomon.VMID{"a", "b"})
	if err != nil || cs[0].Allocation[gnomon.CPU] != hypervisor.Unlimited || cs[1].Allocation[gnomon.CPU] != 307 {
		t.Errorf("Read = %+v, %v; want 307 of b alone", cs, err)
	}
}

func TestVMDropped(t *testing.T) {
	d, host := wrap(t, faulty.Fault{Op: faulty.Read, VM: "a", Nth: 2, Gone: true})
	changes, err := d.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := []gnomon.VMID{"a", "b"}
	for _, want := range []int{2, 1} {
		if cs, err := d.Read(t.Context(), ids); err != nil || len(cs) != want {
			t.Errorf("Read = %d counters, %v; want %d", len(cs), err, want)
		}
	}
	if c := <-changes; c.Kind != hypervisor.Stopped || c.VM != "a" {
		t.Errorf("change = %+v, want that a stopped", c)
	}
	if _, err := d.Apply(t.Context(), "a", gnomon.CPU, 1, hypervisor.Terms{}); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Apply = %v", err)
	}
	if err := d.Restore(t.Context(), "a", hypervisor.Original{}); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Restore = %v", err)
	}
	if ms, err := d.Machines(t.Context()); err != nil || len(ms) != 1 || ms[0].ID != "b" {
		t.Errorf("Machines = %v, %v", ms, err)
	}
	for _, paused := range []bool{true, false} { // of a nothing more is told
		for _, id := range ids {
			if err := host.SetPaused(id, paused); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, kind := range []hypervisor.ChangeKind{hypervisor.Suspended, hypervisor.Resumed} {
		if c := <-changes; c.VM != "b" || c.Kind != kind {
			t.Errorf("change = %+v, want %s of b", c, kind)
		}
	}
}

func TestDisconnect(t *testing.T) {
	d, host := wrap(t, faulty.Fault{Op: faulty.Machines, Disconnect: true})
	synctest.Test(t, func(t *testing.T) {
		changes, err := d.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := d.Machines(t.Context()); !errors.Is(err, faulty.ErrDisconnected) {
				t.Errorf("Machines = %v", err)
			}
		}
		if _, err := d.Host(t.Context()); !errors.Is(err, faulty.ErrDisconnected) {
			t.Errorf("Host = %v", err)
		}
		if err := host.RemoveVM("a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d.Reconnect()
		if c := <-changes; c.Kind != hypervisor.Resync {
			t.Errorf("change = %+v, want Resync, and what happened meanwhile missed", c)
		}
		if ms, err := d.Machines(t.Context()); err != nil || len(ms) != 1 {
			t.Errorf("Machines after Reconnect = %v, %v", ms, err)
		}
	})
}

func TestDelay(t *testing.T) {
	d, _ := wrap(t, faulty.Fault{Op: faulty.Host, Delay: time.Minute, Times: -1})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if _, err := d.Host(t.Context()); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("Host = %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Host(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Host with too little time = %v", err)
		}
	})
}

func TestFaultsAreData(t *testing.T) {
	want := faulty.Fault{Op: faulty.Apply, VM: "a", Resource: gnomon.Disk, OfResource: true, Nth: 3, Times: -1, Delay: time.Second, Gone: true}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got faulty.Fault
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s decodes to %+v, %v", b, got, err)
	}
}
