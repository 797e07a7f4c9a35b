package hypervisortest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func testHost(t *testing.T, ctx context.Context, s Subject) {
	h, err := s.Driver.Host(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name == "" || h.Total[gnomon.CPU] < 1000 || h.Total[gnomon.Memory] < 1<<28 {
		t.Errorf("Host = %+v, want a name, a core and memory", h)
	}
}

func testMachines(t *testing.T, ctx context.Context, s Subject) {
	m := s.machine(t, ctx, s.VM)
	if m.Name == "" || m.VCPUs < 1 || m.Paused || m.ShadowOf != "" {
		t.Errorf("machine = %+v, want a name, vCPUs, running, no shadow", m)
	}
	if m.Max[gnomon.CPU] != int64(m.VCPUs)*1000 || m.Max[gnomon.Memory] == 0 {
		t.Errorf("maximum = %v with %d vCPUs", m.Max, m.VCPUs)
	}
	for r := range gnomon.AllResources() {
		if !m.Limits.Has(r) {
			t.Errorf("%s of the VM cannot be limited: %s", r, m.Why[r])
		}
	}
	if o := m.Original.Limits[gnomon.Memory]; o <= 0 || o > m.Max[gnomon.Memory] {
		t.Errorf("original memory = %d, want up to %d", o, m.Max[gnomon.Memory])
	}
	if m.Memory != m.Original.Limits[gnomon.Memory] {
		t.Errorf("the guest has %d bytes, and they are not its limit of %d", m.Memory, m.Original.Limits[gnomon.Memory])
	}
	bare := s.machine(t, ctx, s.Bare)
	for _, r := range []gnomon.Resource{gnomon.Disk, gnomon.Network} {
		if bare.Limits.Has(r) || bare.Why[r] == "" {
			t.Errorf("%s of the bare VM: limits %v, why %q; want a reason why not", r, bare.Limits.Has(r), bare.Why[r])
		}
		if bare.Original.Limits[r] != hypervisor.Unlimited {
			t.Errorf("%s of the bare VM has the limit %d", r, bare.Original.Limits[r])
		}
	}
	shadow := s.machine(t, ctx, s.Shadow)
	if shadow.ShadowOf != s.VM || shadow.Account != "acme" {
		t.Errorf("shadow of %q, account %q; want %q, acme", shadow.ShadowOf, shadow.Account, s.VM)
	}
}

func testCountersGrow(t *testing.T, ctx context.Context, s Subject) {
	a := s.read(t, ctx, s.VM)
	for range 3 {
		s.Advance(500 * time.Millisecond)
		b := s.read(t, ctx, s.VM)
		if !b.At.After(a.At) {
			t.Errorf("read at %v after %v", b.At, a.At)
		}
		if b.CPUTime <= a.CPUTime || b.CPUWait < a.CPUWait {
			t.Errorf("CPU time %v then %v, wait %v then %v", a.CPUTime, b.CPUTime, a.CPUWait, b.CPUWait)
		}
		if b.DiskBytes <= a.DiskBytes || b.DiskRequests <= a.DiskRequests || b.DiskTime < a.DiskTime {
			t.Errorf("disk %d then %d bytes, %d then %d requests", a.DiskBytes, b.DiskBytes, a.DiskRequests, b.DiskRequests)
		}
		if b.NetworkBytes <= a.NetworkBytes {
			t.Errorf("network %d then %d bytes", a.NetworkBytes, b.NetworkBytes)
		}
		a = b
	}
	for s.read(t, ctx, s.VM).Known != gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network) {
		if ctx.Err() != nil {
			t.Fatal("the guest never told of its memory")
		}
		s.Advance(100 * time.Millisecond)
	}
	a = s.read(t, ctx, s.VM)
	if a.MemoryUsable <= 0 || a.MemoryUsable > a.MemoryAvailable || a.MemoryAvailable > a.MemoryActual {
		t.Errorf("memory usable %d, available %d, actual %d", a.MemoryUsable, a.MemoryAvailable, a.MemoryActual)
	}
	if a.MemoryAt.IsZero() || a.VCPUs < 1 {
		t.Errorf("memory told at %v, %d vCPUs", a.MemoryAt, a.VCPUs)
	}
	if got, want := a.Allocation, s.machine(t, ctx, s.VM).Original.Limits; got != want {
		t.Errorf("allocation = %v, limits listed = %v", got, want)
	}
}

func testReadLeavesGoneOut(t *testing.T, ctx context.Context, s Subject) {
	cs, err := s.Driver.Read(ctx, []gnomon.VMID{s.Absent, s.VM, s.Bare})
	if err != nil {
		t.Fatal(err)
	}
	if len(cs) != 2 || cs[0].VM != s.VM || cs[1].VM != s.Bare {
		t.Errorf("Read = %v, want those that run, in order", cs)
	}
	if len(cs) == 2 && (cs[1].Known.Has(gnomon.Disk) || cs[1].Known.Has(gnomon.Network)) {
		t.Errorf("a VM without disk and network tells of %v", cs[1].Known)
	}
}

func testReadOfNothing(t *testing.T, ctx context.Context, s Subject) {
	for _, ids := range [][]gnomon.VMID{nil, {s.Absent}} {
		if cs, err := s.Driver.Read(ctx, ids); err != nil || len(cs) != 0 {
			t.Errorf("Read(%v) = %v, %v; want nothing", ids, cs, err)
		}
	}
}

func testGlance(t *testing.T, ctx context.Context, s Subject) {
	all := s.read(t, ctx, s.VM)
	for r := range gnomon.AllResources() {
		c, err := s.Driver.Glance(ctx, s.VM, r)
		if err != nil {
			t.Errorf("Glance(%s): %v", r, err)
			continue
		}
		if c.VM != s.VM || c.At.IsZero() || c.Known != gnomon.SetOf(r) {
			t.Errorf("Glance(%s) = %+v, want what tells of it", r, c)
		}
		if got, want := c.Allocation[r], all.Allocation[r]; got != want {
			t.Errorf("Glance(%s): allocation = %d, want as Read tells, %d", r, got, want)
		}
	}
	if c, err := s.Driver.Glance(ctx, s.Bare, gnomon.Disk); err != nil || c.Known != 0 {
		t.Errorf("Glance at the disk of a VM without = %+v, %v; want nothing known", c, err)
	}
	if _, err := s.Driver.Glance(ctx, s.Absent, gnomon.CPU); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Glance at an absent VM: %v, want ErrGone", err)
	}
}

// testNote has a VM carry its own limits until they are restored, with a driver
// that can.
func testNote(t *testing.T, ctx context.Context, s Subject) {
	noter, ok := s.Driver.(hypervisor.Noter)
	if !ok {
		return
	}
	m := s.machine(t, ctx, s.VM)
	if m.Own != nil {
		t.Errorf("it carries %+v before any was noted", *m.Own)
	}
	limited, unlimited := m.Original, m.Original
	limited.Limits[gnomon.Disk], limited.VCPUs, limited.Detail = 1234, 3, `{"a":"<&>"}`
	unlimited.Limits[gnomon.CPU], unlimited.VCPUs, unlimited.Detail = hypervisor.Unlimited, 0, ""
	for _, want := range []hypervisor.Original{limited, unlimited} {
		if err := noter.Note(ctx, s.VM, want); err != nil {
			t.Fatal(err)
		}
		if own := s.machine(t, ctx, s.VM).Own; own == nil || *own != want {
			t.Errorf("it carries %+v, want %+v", own, want)
		}
	}
	if err := s.Driver.Restore(ctx, s.VM, m.Original); err != nil {
		t.Fatal(err)
	}
	if own := s.machine(t, ctx, s.VM).Own; own != nil {
		t.Errorf("it carries %+v after they were restored", *own)
	}
	if err := noter.Note(ctx, s.Absent, limited); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Note on an absent VM: %v, want ErrGone", err)
	}
}

func testWatch(t *testing.T, ctx context.Context, s Subject) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changes, err := s.Driver.Watch(watching)
	if err != nil {
		t.Fatal(err)
	}
	id := s.Start(t)
	expect(t, changes, id, hypervisor.Started)
	s.Suspend(t, id)
	expect(t, changes, id, hypervisor.Suspended)
	if !s.machine(t, ctx, id).Paused {
		t.Error("a suspended VM is not listed as paused")
	}
	s.Resume(t, id)
	expect(t, changes, id, hypervisor.Resumed)
	if s.machine(t, ctx, id).Paused {
		t.Error("a resumed VM is listed as paused")
	}
	s.Stop(t, id)
	expect(t, changes, id, hypervisor.Stopped)
	if _, ok := s.find(t, ctx, id); ok {
		t.Error("a stopped VM is still listed")
	}
	stop()
	for deadline := time.After(wait); ; {
		select {
		case _, open := <-changes:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the channel stays open after its context ended")
		}
	}
}

// expect waits for a change of that kind; others in between are allowed.
func expect(t *testing.T, changes <-chan hypervisor.Change, id gnomon.VMID, kind hypervisor.ChangeKind) {
	t.Helper()
	for deadline := time.After(wait); ; {
		select {
		case c, open := <-changes:
			if !open {
				t.Fatalf("the channel closed before %s", kind)
			}
			if c.VM == id && c.Kind == kind {
				if c.Name == "" {
					t.Errorf("change %s has no name", kind)
				}
				return
			}
		case <-deadline:
			t.Fatalf("no change %s", kind)
		}
	}
}

func testClose(t *testing.T, ctx context.Context, s Subject) {
	changes, err := s.Driver.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Driver.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for range changes {
	}
	if _, err := s.Driver.Machines(ctx); err == nil {
		t.Error("Machines succeeds after Close")
	}
}
