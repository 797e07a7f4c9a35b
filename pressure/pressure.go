package pressure

import (
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// Cause is what an onset was told by.
type Cause string

// The causes.
const (
	Throttled   Cause = "throttled"    // CPU: a vCPU used its quota up
	Queued      Cause = "queued"       // CPU: a vCPU waited for a quarter of its recent past
	Faults      Cause = "faults"       // memory: the VM took more than the line allows
	MajorFaults Cause = "major faults" // memory: the host reads the VM's memory from a disk
	Reclaim     Cause = "reclaim"      // memory: the VM's process has to free memory of its control group
	Rate        Cause = "rate"         // disk and network: what is asked for exceeds the limit
)

// Onset tells that a VM begins to be short of a resource.
type Onset struct {
	VM       gnomon.VMID
	Resource gnomon.Resource
	Cause    Cause
	At       time.Time

	// Interval ends at At. Of CPU it is the recent past of the vCPUs, a few
	// milliseconds to a hundred, and Run and Wait are how long they ran, and
	// were ready to run and did not, in sum: together at most Interval a vCPU. Of
	// other resources it is 0.
	Interval, Run, Wait time.Duration
}

// add adds so many vCPUs that ran and waited for so long, in sum, within a recent
// past of their own, at that rate. The clocks that these come of differ, but
// must not make more than the whole of it.
func (o *Onset) add(vcpus int, past, run, wait time.Duration) {
	most := time.Duration(vcpus) * past
	run = min(run, most)
	wait = min(wait, most-run)
	share := float64(o.Interval) / float64(past)
	o.Run += time.Duration(share * float64(run))
	o.Wait += time.Duration(share * float64(wait))
}

// Subject is where the host's kernel sees a VM.
type Subject struct {
	VM      gnomon.VMID
	Process int   // that runs it; 0 if not known
	VCPUs   []int // their threads

	// Interfaces are, for each interface of the VM, those of the host whose
	// queues carry its traffic.
	Interfaces [][]int
}

// Lines are what a VM's use is held against.
type Lines struct {
	// Memory is how many bytes it may take beyond what it has taken up to now
	// until that is an onset; 0 for no line.
	Memory int64

	// Disk and Network are the limits of all its disks and of all its interfaces
	// together, in bytes per second; 0 or less for none. Each interface is held
	// to an even share, in each direction.
	Disk, Network int64
}

// CPUTimes are the sums of a VM's vCPUs since each was started.
type CPUTimes struct {
	VCPUs int
	Run   time.Duration
	Wait  time.Duration // ready to run and not running, that under way included
}

// Source follows VMs. Its methods may be called concurrently.
type Source interface {
	// Follow begins to follow a VM, or takes note of what changed about it. An
	// error tells what of it is not followed.
	Follow(s Subject) error

	// Forget ends that. One that is not followed is no error.
	Forget(id gnomon.VMID)

	// Draw draws a VM's lines anew.
	Draw(id gnomon.VMID, l Lines)

	// CPU returns the times of a VM's vCPUs as of now; false if this source
	// does not have them.
	CPU(id gnomon.VMID) (CPUTimes, bool)

	// Onsets delivers onsets until Close. One that nobody takes is dropped: the
	// next sample tells as well.
	Onsets() <-chan Onset

	// Name is "ebpf", "perf" or "sampling".
	Name() string

	// Resources are those whose onsets it tells.
	Resources() gnomon.ResourceSet

	Close() error
}

// Names of the sources, from the best to the one that always works.
const (
	EBPF     = "ebpf"
	Perf     = "perf"
	Sampling = "sampling"
)

// Auto has Open choose.
const Auto = "auto"

// Open opens the source of that name; Auto is the best that this host allows.
// why tells for each better one why it was not chosen; it is empty if the best
// was.
func Open(name string) (s Source, why error, err error) {
	openers := []struct {
		name string
		open func() (Source, error)
	}{{EBPF, openKernel}, {Perf, openPerf}, {Sampling, openSampling}}
	for _, o := range openers {
		if name != Auto && name != o.name {
			continue
		}
		s, err := o.open()
		if err == nil {
			return s, why, nil
		}
		why = errors.Join(why, fmt.Errorf("%s: %w", o.name, err))
	}
	if why == nil {
		why = fmt.Errorf("pressure source %q: want %s, %s, %s or %s", name, Auto, EBPF, Perf, Sampling)
	}
	return nil, nil, why
}

// TimesOf returns what tells a driver the times of a VM's vCPUs where the source
// has them, waits that are under way included; nil if there is no source.
func TimesOf(s Source) func(gnomon.VMID) (vcpus int, ran, waited time.Duration, ok bool) {
	if s == nil {
		return nil
	}
	return func(id gnomon.VMID) (int, time.Duration, time.Duration, bool) {
		t, ok := s.CPU(id)
		return t.VCPUs, t.Run, t.Wait, ok
	}
}
