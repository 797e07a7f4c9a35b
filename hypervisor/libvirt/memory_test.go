package libvirt

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func TestDivide(t *testing.T) {
	def := &definition{maxMemory: 512 * mib, booted: 256 * mib, balloon: true,
		plugs: []plug{{size: 128 * mib, block: 2 * mib}, {size: 128 * mib, block: 4 * mib}}}
	for amount, want := range map[int64]parts{
		100 * mib: {100 * mib, []int64{0, 0}},
		256 * mib: {256 * mib, []int64{0, 0}},
		260 * mib: {256 * mib, []int64{4 * mib, 0}},
		261 * mib: {256 * mib, []int64{4 * mib, 0}}, // part of a block is not given
		391 * mib: {256 * mib, []int64{128 * mib, 4 * mib}},
		512 * mib: {256 * mib, []int64{128 * mib, 128 * mib}},
	} {
		if got := def.divide(amount); !reflect.DeepEqual(got, want) {
			t.Errorf("divide(%d MiB) = %v, want %v", amount/mib, got, want)
		}
	}
	if err := def.checkMemory(513 * mib); err == nil {
		t.Error("more than the maximum is accepted")
	}
	def.balloon = false
	if err := def.checkMemory(255 * mib); err == nil {
		t.Error("less than it booted with is accepted without a balloon")
	}
}

func TestParsePlugged(t *testing.T) {
	got, err := parsePlugged(`<domain><memory unit="KiB">9</memory><devices>
		<memory model="dimm"><target><size unit="KiB">4</size></target></memory>
		<memory model="virtio-mem"><target><size unit="KiB">8</size><current unit="KiB">6</current></target></memory>
		<memory model="virtio-mem"><target><current unit="MiB">1</current></target></memory></devices></domain>`)
	if want := []int64{6 << 10, 1 << 20}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parsePlugged = %v, %v; want %v", got, err, want)
	}
}

// memoryOf returns what a guest has and what it tells of it.
func memoryOf(t *testing.T, d *Driver, id gnomon.VMID) hypervisor.Counters {
	t.Helper()
	cs, err := d.Read(t.Context(), []gnomon.VMID{id})
	if err != nil || len(cs) != 1 {
		t.Fatalf("Read = %d counters, %v", len(cs), err)
	}
	return cs[0]
}

func TestMemoryOfRealGuests(t *testing.T) {
	b := newBench(t, Options{})
	for name, test := range map[string]func(*testing.T, *bench){
		"plugged": testPlugged, "without driver": testWithoutDriver, "without balloon": testWithoutBalloon,
		"slow": testSlow, "paused": testPaused, "ends midway": testEndsMidway,
		"starting": testStarting,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

const mib = 1 << 20

// within applies an amount of memory within a time.
func within(t *testing.T, d *Driver, limit time.Duration, id gnomon.VMID, amount int64) (int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return d.Apply(ctx, id, gnomon.Memory, amount, hypervisor.Terms{})
}

// A guest with a virtio-mem device goes above what it booted with by plugging,
// and below it by the balloon.
func testPlugged(t *testing.T, b *bench) {
	id := b.start(t, guest{plug: 128})
	b.ready(t, id)
	m, err := b.d.machine(t.Context(), mustLookup(t, b.d, id).Domain)
	if err != nil || m.Max[gnomon.Memory] != 384*mib || m.Original.Limits[gnomon.Memory] != 256*mib || !m.Limits.Has(gnomon.Memory) {
		t.Fatalf("machine = %+v, %v", m, err)
	}
	apply := func(want int64) {
		t.Helper()
		if got, err := within(t, b.d, time.Minute, id, want); err != nil || got != want {
			t.Fatalf("Apply(%d MiB) = %d MiB, %v", want/mib, got/mib, err)
		}
		if got := memoryOf(t, b.d, id).Allocation[gnomon.Memory]; got != want {
			t.Errorf("allocation read after Apply(%d MiB) = %d MiB", want/mib, got/mib)
		}
	}
	var before hypervisor.Counters
	poll(t, "the guest to tell", func() bool { before = memoryOf(t, b.d, id); return before.Known.Has(gnomon.Memory) })
	apply(384 * mib)
	poll(t, "the guest to tell that it has more", func() bool {
		return memoryOf(t, b.d, id).MemoryUsable > before.MemoryUsable+100*mib
	})
	apply(192 * mib)
	poll(t, "the guest to tell that it has less", func() bool {
		return memoryOf(t, b.d, id).MemoryUsable < before.MemoryUsable-32*mib
	})
	apply(320 * mib)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.d.Restore(ctx, id, m.Original); err != nil {
		t.Fatal(err)
	}
	if got := memoryOf(t, b.d, id).Allocation[gnomon.Memory]; got != 256*mib {
		t.Errorf("restored to %d MiB, had 256", got/mib)
	}
}

// What a VM had of memory before gnomon is what its definition gives it, and not
// what it has until its balloon works. Later it is what its owner left it.
func testStarting(t *testing.T, b *bench) {
	id := b.start(t, guest{empty: true, stored: true, max: 512})
	dm := mustLookup(t, b.d, id)
	look := func(memory, original int64) {
		t.Helper()
		m, err := b.d.machine(t.Context(), dm.Domain)
		if err != nil || m.Memory != memory || m.Original.Limits[gnomon.Memory] != original {
			t.Errorf("it has %d MiB, and had %d before gnomon (%v); want %d and %d", m.Memory/mib, m.Original.Limits[gnomon.Memory]/mib, err, memory/mib, original/mib)
		}
	}
	look(512*mib, 256*mib)
	long := time.Now().Add(-startTime)
	if err := os.Chtimes(processFile(dm.Name), long, long); err != nil {
		t.Fatal(err)
	}
	look(512*mib, 512*mib)

	id = b.start(t, guest{stored: true, max: 512})
	dm = mustLookup(t, b.d, id)
	b.ready(t, id)
	poll(t, "the balloon to work", func() bool { return memoryOf(t, b.d, id).Allocation[gnomon.Memory] == 256*mib })
	look(256*mib, 256*mib)
	virsh := exec.Command("virsh", "-q", "setmem", dm.Name, "300M", "--live")
	if out, err := virsh.CombinedOutput(); err != nil {
		t.Fatalf("setmem: %v: %s", err, out)
	}
	poll(t, "the guest to follow its owner", func() bool { return memoryOf(t, b.d, id).Allocation[gnomon.Memory] == 300*mib })
	look(300*mib, 300*mib)
}

// A guest that runs no driver has what it had: nothing counts as given or
// taken, and nothing moves should a driver come later.
func testWithoutDriver(t *testing.T, b *bench) {
	id := b.start(t, guest{empty: true, plug: 64})
	for _, want := range []int64{128 * mib, 320 * mib} {
		got, err := within(t, b.d, 2*time.Second, id, want)
		if !errors.Is(err, context.DeadlineExceeded) || got != 256*mib {
			t.Errorf("Apply(%d MiB) = %d MiB, %v; want it to stay at 256", want/mib, got/mib, err)
		}
	}
	if c := memoryOf(t, b.d, id); c.Known.Has(gnomon.Memory) || c.Allocation[gnomon.Memory] != 256*mib {
		t.Errorf("counters of a guest that tells nothing: known %v, %d MiB", c.Known.Has(gnomon.Memory), c.Allocation[gnomon.Memory]/mib)
	}
}

// A VM without a balloon says so, and is left alone.
func testWithoutBalloon(t *testing.T, b *bench) {
	id := b.start(t, guest{mute: true})
	got, err := b.d.Apply(t.Context(), id, gnomon.Memory, 128<<20, hypervisor.Terms{})
	if !errors.Is(err, hypervisor.ErrUnsupported) {
		t.Errorf("Apply = %d, %v; want ErrUnsupported", got, err)
	}
	if c := memoryOf(t, b.d, id); c.Known.Has(gnomon.Memory) || !c.Known.Has(gnomon.CPU) {
		t.Errorf("known = %v, want CPU and not memory", c.Known)
	}
}

// A guest that gives back slowly is left where it is when time is up: nothing
// is taken from it behind the book's back.
func testSlow(t *testing.T, b *bench) {
	id := b.start(t, guest{})
	b.ready(t, id)
	if _, err := b.d.Apply(t.Context(), id, gnomon.CPU, 60, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	reached, err := within(t, b.d, 2*time.Second, id, 96*mib)
	if !errors.Is(err, context.DeadlineExceeded) || reached <= 96*mib || reached > 256*mib {
		t.Fatalf("Apply = %d MiB, %v; want less than all in time", reached/mib, err)
	}
	t.Logf("%d MiB of 160 given back in time", 256-reached/mib)
	if _, err := b.d.Apply(t.Context(), id, gnomon.CPU, hypervisor.Unlimited, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * time.Second) // for what must not happen
	if now := memoryOf(t, b.d, id).Allocation[gnomon.Memory]; now < reached-8*mib || now > reached+8*mib {
		t.Errorf("%d MiB were left, and are %d now", reached/mib, now/mib)
	}
}

// A guest that is paused gives nothing and takes nothing; its other limits can
// be set, and hold when it goes on.
func testPaused(t *testing.T, b *bench) {
	id := b.start(t, guest{})
	b.ready(t, id)
	act(b.d.Suspend)(t, id)
	if got, err := within(t, b.d, 2*time.Second, id, 128*mib); !errors.Is(err, context.DeadlineExceeded) || got != 256*mib {
		t.Errorf("Apply of memory = %d MiB, %v; want it to stay at 256", got/mib, err)
	}
	if got, err := b.d.Apply(t.Context(), id, gnomon.CPU, 500, hypervisor.Terms{}); err != nil || got != 500 {
		t.Errorf("Apply of CPU = %d, %v", got, err)
	}
	act(b.d.Resume)(t, id)
	if got, err := within(t, b.d, time.Minute, id, 224*mib); err != nil || got != 224*mib {
		t.Errorf("Apply of memory once it goes on = %d MiB, %v", got/mib, err)
	}
	if got := memoryOf(t, b.d, id).Allocation[gnomon.CPU]; got != 500 {
		t.Errorf("CPU is limited to %d, want 500", got)
	}
}

// A VM that crashes while its memory moves is gone, not in error.
func testEndsMidway(t *testing.T, b *bench) {
	id := b.start(t, guest{})
	b.ready(t, id)
	if _, err := b.d.Apply(t.Context(), id, gnomon.CPU, 20, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.d.Apply(t.Context(), id, gnomon.Memory, 96*mib, hypervisor.Terms{})
		done <- err
	}()
	poll(t, "the balloon to be told to move", func() bool { return mustLookup(t, b.d, id).movedLately() })
	process := b.d.presence(mustLookup(t, b.d, id)).Process
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, hypervisor.ErrGone) {
			t.Errorf("Apply = %v, want ErrGone", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Apply goes on after the VM has ended")
	}
}

func mustLookup(t *testing.T, d *Driver, id gnomon.VMID) *domain {
	t.Helper()
	dm, err := d.lookup(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return dm
}
