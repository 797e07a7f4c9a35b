package libvirt

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// withVCPUs limits a guest's CPU, with at least so many vCPUs, within a time.
func withVCPUs(t *testing.T, d *Driver, limit time.Duration, id gnomon.VMID, amount int64, terms hypervisor.Terms) (int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return d.Apply(ctx, id, gnomon.CPU, amount, terms)
}

func mustMachine(t *testing.T, d *Driver, id gnomon.VMID) hypervisor.Machine {
	t.Helper()
	m, err := d.machine(t.Context(), mustLookup(t, d, id).Domain)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAmountOfQuotas(t *testing.T) {
	for _, c := range []struct {
		q             quotas
		vcpus, online int
		want          int64
	}{
		{quotas{}, 2, 2, hypervisor.Unlimited},
		{quotas{VCPU: quota{10_000, 20_000}}, 2, 1, 1000},
		{quotas{All: quota{30_000, 20_000}}, 2, 2, 1500},
		{quotas{All: quota{30_000, 20_000}}, 2, 1, 1000}, // what is not online takes nothing
		{quotas{VCPU: quota{10_000, 20_000}, All: quota{30_000, 20_000}}, 2, 2, 1000},
		{quotas{VCPU: quota{20_000, 20_000}, All: quota{30_000, 20_000}}, 2, 2, 1500},
	} {
		if got := c.q.amount(c.vcpus, c.online); got != c.want {
			t.Errorf("%+v with %d of %d online: %d, want %d", c.q, c.online, c.vcpus, got, c.want)
		}
	}
	found := quotas{All: quota{30_000, 20_000}}
	two := &domain{live: newLive(2)}
	if got := two.original(found, 1500, 2); got != found {
		t.Errorf("what makes up the amount becomes %+v", got)
	}
	if got := two.original(found, 500, 2).amount(2, 2); got != 500 {
		t.Errorf("quotas of 500 make up %d", got)
	}
	if got := two.original(found, hypervisor.Unlimited, 2); got != (quotas{}) {
		t.Errorf("quotas of no limit are %+v", got)
	}
	text, err := detail{Quotas: &quotas{All: quota{3, 4}}}.encode()
	if back, err2 := parseDetail(text); err != nil || err2 != nil || back.Quotas == nil || *back.Quotas != (quotas{All: quota{3, 4}}) {
		t.Errorf("%s comes back as %+v, %v, %v", text, back, err, err2)
	}
}

func TestVCPUsOfRealGuests(t *testing.T) {
	b := newBench(t, Options{})
	t.Run("shared", func(t *testing.T) { testSharedLimit(t, b) })
	t.Run("one busy thread", func(t *testing.T) { testOneBusyThread(t, b) })
	t.Run("plugged and taken back", func(t *testing.T) { testVCPUs(t, b) })
	t.Run("refused", func(t *testing.T) { testRefusedVCPUs(t, b) })
}

// The vCPUs of a guest share its limit, so that one busy thread gets what there is;
// quotas of its own, for each vCPU or for all, it has back at the end.
func testSharedLimit(t *testing.T, b *bench) {
	id := b.start(t, guest{vcpus: 2, whole: true})
	b.ready(t, id)
	dm := mustLookup(t, b.d, id)
	for _, own := range []quotas{{}, {VCPU: quota{40_000, 100_000}}, {All: quota{90_000, 100_000}}, {VCPU: quota{30_000, 100_000}, All: quota{90_000, 100_000}}} {
		if err := b.d.setQuotas(t.Context(), dm, own); err != nil {
			t.Fatal(err)
		}
		before := mustMachine(t, b.d, id)
		if want := own.amount(2, 2); before.VCPUs != 2 || before.Original.Limits[gnomon.CPU] != want {
			t.Errorf("%+v: machine %+v, want a limit of %d", own, before, want)
		}
		for _, amount := range []int64{700, 1300} {
			got, err := b.d.Apply(t.Context(), id, gnomon.CPU, amount, hypervisor.Terms{})
			q, err2 := b.d.askQuotas(t.Context(), dm)
			if err != nil || err2 != nil || got != amount || q != (quotas{All: quota{amount * 20, 20_000}}) {
				t.Fatalf("%+v: Apply(%d) = %d, %v: quotas %+v, %v", own, amount, got, err, q, err2)
			}
			if c := memoryOf(t, b.d, id); c.Allocation[gnomon.CPU] != amount {
				t.Errorf("%+v: the counters have %d after it, want %d", own, c.Allocation[gnomon.CPU], amount)
			}
		}
		if err := b.d.Restore(t.Context(), id, before.Original); err != nil {
			t.Fatal(err)
		}
		if q, err := b.d.askQuotas(t.Context(), dm); err != nil || q != own {
			t.Errorf("restored to %+v, %v; was %+v", q, err, own)
		}
	}
}

// One busy thread of a guest with two vCPUs has all of the limit, but for what the
// guest's kernel needs of the other; with even parts there was a quarter left.
func testOneBusyThread(t *testing.T, b *bench) {
	id := b.start(t, guest{vcpus: 2, whole: true, busy: true, solid: true})
	b.ready(t, id)
	const limit = 400
	if got, err := b.d.Apply(t.Context(), id, gnomon.CPU, limit, hypervisor.Terms{}); err != nil || got != limit {
		t.Fatalf("Apply(%d) = %d, %v", limit, got, err)
	}
	var meter demand.Meter
	poll(t, "a thread to use up the limit", func() bool {
		sample, ok := meter.Next(memoryOf(t, b.d, id))
		used := sample.Usage[gnomon.CPU]
		time.Sleep(500 * time.Millisecond)
		return ok && sample.Interval > 300*time.Millisecond && used > limit*9/10 && used < limit*3/2
	})
}

// A guest is given vCPUs that it brings online, which share its limit, and has
// them taken back.
func testVCPUs(t *testing.T, b *bench) {
	id := b.start(t, guest{vcpus: 3})
	b.ready(t, id)
	before := mustMachine(t, b.d, id)
	if before.VCPUs != 1 || before.Online != 1 || before.MaxVCPUs != 3 || before.Max[gnomon.CPU] != 1000 {
		t.Fatalf("machine = %+v", before)
	}
	if got, err := b.d.Apply(t.Context(), id, gnomon.CPU, 600, hypervisor.Terms{}); err != nil || got != 600 {
		t.Fatalf("Apply(600) = %d, %v", got, err)
	}
	for _, c := range []struct {
		amount int64
		terms  hypervisor.Terms
		has    int
	}{
		{1700, hypervisor.Terms{VCPUs: 2}, 2},
		{500, hypervisor.Terms{VCPUs: 1}, 2},
		{2500, hypervisor.Terms{VCPUs: 3}, 3},
		{1500, hypervisor.Terms{VCPUs: 2, Spare: true}, 2},
	} {
		began := time.Now()
		got, err := withVCPUs(t, b.d, time.Minute, id, c.amount, c.terms)
		m := mustMachine(t, b.d, id)
		if err != nil || got != c.amount || m.VCPUs != c.has || m.Online != c.has || m.Original.Limits[gnomon.CPU] != c.amount {
			t.Fatalf("Apply(%d, %+v) = %d, %v: %d of %d vCPUs online, limit %d; want %d", c.amount, c.terms, got, err, m.Online, m.VCPUs, m.Original.Limits[gnomon.CPU], c.has)
		}
		t.Logf("%+v took %v", c.terms, time.Since(began))
		if got := memoryOf(t, b.d, id); got.VCPUs != c.has || got.Allocation[gnomon.CPU] != c.amount {
			t.Errorf("counters after it: %d vCPUs, limit %d", got.VCPUs, got.Allocation[gnomon.CPU])
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	adopted := before.Original // but for the amount, which somebody else has set since
	adopted.Limits[gnomon.CPU] = 300
	if err := b.d.Restore(ctx, id, adopted); err != nil {
		t.Fatal(err)
	}
	if m := mustMachine(t, b.d, id); m.VCPUs != 1 || m.Original.Limits[gnomon.CPU] != 300 {
		t.Errorf("restored to %d vCPUs and %d millicores, want 1 and 300", m.VCPUs, m.Original.Limits[gnomon.CPU])
	}
	if err := b.d.Restore(ctx, id, before.Original); err != nil {
		t.Fatal(err)
	}
	if after := mustMachine(t, b.d, id); after.VCPUs != 1 || after.Original != before.Original {
		t.Errorf("restored to %+v, was %+v", after.Original, before.Original)
	}
}

// A guest that does not bring vCPUs online has what it had: only what it uses
// counts, and its limit is not spread over what it does not use.
func testRefusedVCPUs(t *testing.T, b *bench) {
	id := b.start(t, guest{vcpus: 2, refuses: true})
	b.ready(t, id)
	before := mustMachine(t, b.d, id)
	got, err := withVCPUs(t, b.d, 3*time.Second, id, 1800, hypervisor.Terms{VCPUs: 2})
	if !errors.Is(err, hypervisor.ErrRefused) || got != 1000 {
		t.Errorf("Apply(1800) = %d, %v; want 1000 and that it is refused", got, err)
	}
	if m := mustMachine(t, b.d, id); m.Online != 1 || m.MaxVCPUs != 2 {
		t.Errorf("%d vCPUs online of %d, want 1", m.Online, m.VCPUs)
	}
	if got, err := withVCPUs(t, b.d, time.Minute, id, 900, hypervisor.Terms{VCPUs: 1}); err != nil || got != 900 {
		t.Errorf("Apply(900) after it = %d, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.d.Restore(ctx, id, before.Original); err != nil && !errors.Is(err, hypervisor.ErrInUse) {
		t.Fatal(err)
	}
	if q, err := b.d.askQuotas(t.Context(), mustLookup(t, b.d, id)); err != nil || q.VCPU.Quota != 0 || q.All.Quota != 0 {
		t.Errorf("quotas after Restore = %+v, %v; had none", q, err)
	}
}
