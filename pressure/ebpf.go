package pressure

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon"
)

//go:generate go tool bpf2go -go-package pressure -target bpfel -type onset -type thread -type vm -type bucket kernel bpf/pressure.c -- -O2 -Wall -Werror

// A limiter of disks lets a tenth of a second's worth through at once (QEMU's
// throttle), one of interfaces the burst of package shaper: what is asked for
// beyond that is held back.
const (
	diskRoom    = 80 * time.Millisecond
	networkRoom = 20 * time.Millisecond
	leastRoom   = 96 << 10 // bytes: a segment as a guest offloads it, and a half
)

// leastPast is the least recent past that says how much a vCPU needs. One that
// woke just before its quota was used up, by another, is told of that much
// later: the scheduler's sums and the programs' clock are some 10 µs apart.
const leastPast = 2 * time.Millisecond

// kernel is the source of programs in the kernel.
type kernel struct {
	objects kernelObjects
	reader  *ringbuf.Reader
	onsets  chan Onset
	done    chan struct{} // closed when the reader ended

	mu     sync.Mutex
	links  []link.Link
	rates  bool // the programs that count bytes are attached
	vms    map[gnomon.VMID]*followed
	slots  []gnomon.VMID // by the number that the programs know it by
	free   []uint32      // given back, the longest ago first
	closed bool
}

// followed is what the programs know of a VM.
type followed struct {
	slot uint32
	Subject
	lines Lines
	last  CPUTimes // as last told: estimates must not go back
}

func openKernel() (Source, error) {
	// Kernels before 5.11 count maps against this limit. Where it matters and
	// cannot be raised, loading fails and tells.
	_ = rlimit.RemoveMemlock()
	k := &kernel{onsets: make(chan Onset, 256), done: make(chan struct{}), vms: map[gnomon.VMID]*followed{}}
	if err := loadKernelObjects(&k.objects, nil); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	err := k.attach(k.objects.OnSwitch, k.objects.OnWakeup, k.objects.OnExit, k.objects.OnReclaim)
	if err == nil {
		k.reader, err = ringbuf.NewReader(k.objects.Onsets)
	}
	if err != nil {
		k.detach()
		return nil, err
	}
	go k.read()
	return k, nil
}

func (k *kernel) attach(programs ...*ebpf.Program) error {
	for _, p := range programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return fmt.Errorf("attach %s: %w", p, err)
		}
		k.links = append(k.links, l)
	}
	return nil
}

func (k *kernel) detach() {
	for _, l := range k.links {
		_ = l.Close()
	}
	_ = k.objects.Close()
}

func (k *kernel) Name() string                  { return EBPF }
func (k *kernel) Resources() gnomon.ResourceSet { return everything }
func (k *kernel) Onsets() <-chan Onset          { return k.onsets }

const everything = gnomon.ResourceSet(1<<gnomon.NumResources - 1)

func (k *kernel) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.mu.Unlock()
	err := k.reader.Close()
	<-k.done
	k.detach()
	return err
}

// read delivers what the programs tell.
func (k *kernel) read() {
	defer close(k.done)
	defer close(k.onsets)
	var later sync.WaitGroup
	defer later.Wait()
	var record ringbuf.Record
	for {
		if err := k.reader.ReadInto(&record); err != nil {
			return // closed
		}
		var told kernelOnset
		if !told.decode(record.RawSample) {
			continue
		}
		if gnomon.Resource(told.Resource) != gnomon.CPU || time.Duration(told.Interval) >= leastPast {
			k.deliver(told)
		} else if t, ok := k.thread(int(told.Thread)); ok {
			later.Go(func() { k.deliverLater(told, t) })
		}
	}
}

func (k *kernel) deliver(told kernelOnset) {
	o, ok := k.onset(told)
	if !ok {
		return
	}
	select {
	case k.onsets <- o:
	default:
	}
}

// deliverLater delivers the onset of a thread, read when it was told, once there
// is enough of its past.
func (k *kernel) deliverLater(told kernelOnset, before kernelThread) {
	time.Sleep(leastPast - since(monotonic(), before.Older.At))
	t, ok := k.thread(int(told.Thread))
	if !ok {
		return
	}
	t.Older = before.Older
	told.At = monotonic()
	past, run, wait := t.past(told.At)
	told.Interval, told.Run, told.Wait = uint64(past), uint64(run), uint64(wait)
	k.deliver(told)
}

var causes = map[uint32]Cause{1: Throttled, 2: Queued, 3: Faults, 4: MajorFaults, 5: Reclaim, 6: Rate}

func (k *kernel) onset(told kernelOnset) (Onset, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if int(told.Vm) >= len(k.slots) || !gnomon.Resource(told.Resource).Valid() {
		return Onset{}, false
	}
	f := k.vms[k.slots[told.Vm]]
	if f == nil {
		return Onset{}, false
	}
	now := monotonic()
	o := Onset{
		VM: f.VM, Resource: gnomon.Resource(told.Resource), Cause: causes[told.Cause],
		At: time.Now().Add(-since(now, told.At)),
	}
	if o.Resource == gnomon.CPU {
		o.Interval = time.Duration(told.Interval)
		o.add(1, o.Interval, time.Duration(told.Run), time.Duration(told.Wait))
		k.others(f, told, &o)
	}
	return o, true
}

// others adds the other vCPUs to the onset of one, each at the rates of its own
// recent past.
func (k *kernel) others(f *followed, told kernelOnset, o *Onset) {
	for _, tid := range f.VCPUs {
		if uint32(tid) == told.Thread {
			continue
		}
		if t, ok := k.thread(tid); ok {
			past, run, wait := t.past(told.At)
			o.add(1, max(past, leastPast), run, wait)
		}
	}
}

// The states of a thread, as in bpf/pressure.c.
const (
	running = 1
	waiting = 2
)

// times are the sums of a thread at that time of the monotonic clock.
func (t *kernelThread) times(now uint64) (run, wait time.Duration) {
	run, wait = time.Duration(t.Run), time.Duration(t.Wait)
	switch t.State {
	case running:
		run += since(now, t.At)
	case waiting:
		wait += since(now, t.At)
	}
	return run, wait
}

// past is how long the thread's recent past is at that time, and how long it ran
// and waited in it.
func (t *kernelThread) past(now uint64) (past, run, wait time.Duration) {
	run, wait = t.times(now)
	return since(now, t.Older.At), max(0, run-time.Duration(t.Older.Run)), max(0, wait-time.Duration(t.Older.Wait))
}

// thread reads what is known of a thread; false if it is not known, or has done
// nothing since it was followed. A program may be writing meanwhile: what reads
// the same twice was not torn.
func (k *kernel) thread(tid int) (t kernelThread, ok bool) {
	const tries = 4
	var last kernelThread
	for i := range tries {
		if err := k.objects.Threads.Lookup(uint32(tid), &t); err != nil || t.At == 0 {
			return t, false
		}
		if i > 0 && t == last {
			break
		}
		last = t
	}
	return t, true
}

func (k *kernel) CPU(id gnomon.VMID) (CPUTimes, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.vms[id]
	if f == nil || len(f.VCPUs) == 0 {
		return CPUTimes{}, false
	}
	out := CPUTimes{VCPUs: len(f.VCPUs)}
	for _, tid := range f.VCPUs {
		var run, wait time.Duration
		if t, ok := k.thread(tid); ok {
			run, wait = t.times(monotonic())
		} else if told, err := schedstat(tid); err == nil {
			run, wait = told.run, told.wait
		} else {
			return CPUTimes{}, false
		}
		out.Run += run
		out.Wait += wait
	}
	if out.VCPUs == f.last.VCPUs {
		out.Run, out.Wait = max(out.Run, f.last.Run), max(out.Wait, f.last.Wait)
	}
	f.last = out
	return out, true
}

func (k *kernel) Follow(s Subject) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.vms[s.VM]
	if f == nil {
		slot, err := k.slot(s.VM)
		if err != nil {
			return err
		}
		f = &followed{slot: slot, Subject: Subject{VM: s.VM}}
		k.vms[s.VM] = f
	}
	var failed []error
	for _, tid := range f.VCPUs {
		if !slices.Contains(s.VCPUs, tid) {
			k.drop(k.objects.Threads, tid)
		}
	}
	for _, tid := range s.VCPUs {
		if !slices.Contains(f.VCPUs, tid) {
			failed = append(failed, k.put(k.objects.Threads, tid, kernelThread{Vm: f.slot}))
		}
	}
	if f.Process != s.Process {
		k.drop(k.objects.Processes, f.Process)
		failed = append(failed, k.put(k.objects.Processes, s.Process, f.disk()))
	}
	before, now := slices.Concat(f.Interfaces...), slices.Concat(s.Interfaces...)
	f.VCPUs, f.Process, f.Interfaces = slices.Clone(s.VCPUs), s.Process, s.Interfaces
	for _, device := range before {
		if !slices.Contains(now, device) {
			k.drop(k.objects.Devices, device)
		}
	}
	for _, device := range now {
		if !slices.Contains(before, device) {
			failed = append(failed, k.put(k.objects.Devices, device, f.network()))
		}
	}
	return errors.Join(failed...)
}

// slot returns a number for a VM: a fresh one while there is, so that what a
// program still writes for one that was forgotten meets nobody.
func (k *kernel) slot(id gnomon.VMID) (uint32, error) {
	if n := uint32(len(k.slots)); n < k.objects.Vms.MaxEntries() {
		k.slots = append(k.slots, id)
		return n, nil
	}
	if len(k.free) == 0 {
		return 0, fmt.Errorf("follow VM %s: %d VMs are followed, and no more can be", id, len(k.slots))
	}
	slot := k.free[0]
	k.free = k.free[1:]
	k.slots[slot] = id
	if err := k.objects.Lines.Put(slot, uint64(0)); err != nil {
		return 0, fmt.Errorf("follow VM %s: %w", id, err)
	}
	return slot, nil
}

func (k *kernel) put(m *ebpf.Map, key int, value any) error {
	if key == 0 {
		return nil
	}
	if err := m.Put(uint32(key), value); err != nil {
		return fmt.Errorf("follow %d in %s: %w", key, m, err)
	}
	return nil
}

// drop takes a key out that may be gone by itself.
func (k *kernel) drop(m *ebpf.Map, key int) {
	if key != 0 {
		_ = m.Delete(uint32(key))
	}
}

func (k *kernel) Forget(id gnomon.VMID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.vms[id]
	if f == nil {
		return
	}
	delete(k.vms, id)
	for _, tid := range f.VCPUs {
		k.drop(k.objects.Threads, tid)
	}
	k.drop(k.objects.Processes, f.Process)
	for _, device := range slices.Concat(f.Interfaces...) {
		k.drop(k.objects.Devices, device)
	}
	k.free = append(k.free, f.slot)
}

// Draw draws the lines. Those of disk and network that did not move are left as
// they are, with what was counted against them.
func (k *kernel) Draw(id gnomon.VMID, l Lines) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.vms[id]
	if f == nil {
		return
	}
	before := f.lines
	f.lines = l
	k.drawMemory(f)
	if (l.Disk > 0 || l.Network > 0) && !k.rates {
		// Nobody pays for counting bytes before there is a limit.
		k.rates = k.attach(k.objects.OnBio, k.objects.OnPacket) == nil
	}
	if l.Disk != before.Disk {
		_ = k.put(k.objects.Processes, f.Process, f.disk())
	}
	if l.Network != before.Network {
		for _, device := range slices.Concat(f.Interfaces...) {
			_ = k.put(k.objects.Devices, device, f.network())
		}
	}
}

func (k *kernel) drawMemory(f *followed) {
	line := uint64(0)
	if f.lines.Memory > 0 {
		var vm kernelVm
		if err := k.objects.Vms.Lookup(f.slot, &vm); err != nil {
			return
		}
		line = vm.Faults + max(uint64(f.lines.Memory)/uint64(unix.Getpagesize()), 1)
	}
	_ = k.objects.Lines.Put(f.slot, line)
}

func (f *followed) disk() kernelBucket {
	return bucket(f.slot, gnomon.Disk, f.lines.Disk, diskRoom)
}

func (f *followed) network() kernelBucket {
	share := f.lines.Network / int64(max(len(f.Interfaces), 1))
	return bucket(f.slot, gnomon.Network, share, networkRoom)
}

func bucket(slot uint32, r gnomon.Resource, rate int64, room time.Duration) kernelBucket {
	const most = 1 << 40 // bytes per second that the program can calculate with
	b := kernelBucket{Vm: slot, Resource: uint32(r)}
	if rate > 0 && rate <= most {
		b.Rate = uint64(rate)
		b.Room = uint64(max(float64(rate)*room.Seconds(), leastRoom))
	}
	return b
}
