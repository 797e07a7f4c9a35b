package pressure

import (
	"slices"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// A VM is held up, and tells so again at the earliest, as in bpf/pressure.c.
const (
	queuedLeast = 5 * time.Millisecond
	queuedPart  = 4
	gap         = 50 * time.Millisecond
)

// looker is what the sources without programs in the kernel have in common:
// when told to, they look at how long a VM's vCPUs were ready to run and did
// not. It sees CPU alone.
type looker struct {
	name   string
	onsets chan Onset

	// changed is told, with mu held, which threads of a VM are followed from now
	// on. Its error tells which cannot be.
	changed func(id gnomon.VMID, threads []int) error

	mu  sync.Mutex
	vms map[gnomon.VMID]*looked
}

// looked is a VM and what was seen of it when last looked at.
type looked struct {
	threads []int
	at      time.Time
	sum     threadTimes
	told    time.Time
}

func newLooker(name string) *looker {
	return &looker{
		name: name, onsets: make(chan Onset, 256), vms: map[gnomon.VMID]*looked{},
		changed: func(gnomon.VMID, []int) error { return nil },
	}
}

func (l *looker) Name() string                     { return l.name }
func (l *looker) Resources() gnomon.ResourceSet    { return gnomon.SetOf(gnomon.CPU) }
func (l *looker) Onsets() <-chan Onset             { return l.onsets }
func (l *looker) Draw(gnomon.VMID, Lines)          {}
func (l *looker) CPU(gnomon.VMID) (CPUTimes, bool) { return CPUTimes{}, false }

func (l *looker) Follow(s Subject) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.vms[s.VM]
	if v != nil && slices.Equal(v.threads, s.VCPUs) {
		return nil
	}
	l.vms[s.VM] = &looked{threads: slices.Clone(s.VCPUs)}
	return l.changed(s.VM, s.VCPUs)
}

func (l *looker) Forget(id gnomon.VMID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.vms[id] != nil {
		delete(l.vms, id)
		_ = l.changed(id, nil)
	}
}

// look looks at a VM and tells if it was held up since it was last looked at.
func (l *looker) look(id gnomon.VMID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.vms[id]
	if v == nil {
		return
	}
	now := time.Now()
	var sum threadTimes
	for _, tid := range v.threads {
		t, err := schedstat(tid)
		if err != nil {
			return // it ends, or changes: the next Follow tells
		}
		sum.run += t.run
		sum.wait += t.wait
	}
	past := now.Sub(v.at)
	run, wait := sum.run-v.sum.run, sum.wait-v.sum.wait
	first := v.at.IsZero()
	v.at, v.sum = now, sum
	if first || wait < queuedLeast || wait*queuedPart < past || now.Sub(v.told) < gap {
		return
	}
	v.told = now
	o := Onset{VM: id, Resource: gnomon.CPU, Cause: Queued, At: now, Interval: past}
	o.add(len(v.threads), past, run, wait)
	select {
	case l.onsets <- o:
	default:
	}
}

// lookAtAll looks at every VM.
func (l *looker) lookAtAll() {
	l.mu.Lock()
	ids := make([]gnomon.VMID, 0, len(l.vms))
	for id := range l.vms {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	for _, id := range ids {
		l.look(id)
	}
}
