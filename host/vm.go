package host

import (
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// vm is an active VM that is taken in. The loop owns it.
type vm struct {
	machine hypervisor.Machine
	account string // as the broker knows it
	params  config.Parameters
	bounds  bounds

	// operationSize is that of params when the limit of its disks was set last,
	// hypervisor.Unlimited if it never was.
	operationSize int64

	own        hypervisor.Original // before gnomon
	refuses    bool                // its guest does not use vCPUs that were plugged
	keeps      bool                // its guest does not let go of vCPUs
	spareSince time.Time           // vCPUs are; zero if none is

	// renewing is while a limit is set that the broker knows nothing of; what it
	// wants done waits.
	renewing [gnomon.NumResources]sync.WaitGroup

	meter   demand.Meter
	due     time.Time // of the next reading
	reading bool      // one is under way
	last    gnomon.Sample
	starved [gnomon.NumResources]time.Duration // in total

	wants     [gnomon.NumResources]gnomon.Want // latest forecasts
	decisions ring[gnomon.Decision]
	handovers [gnomon.NumResources]ring[time.Duration] // latest handover latencies

	urgency urgency

	overrides [gnomon.NumResources]override

	shadow   *shadowVM
	retryAt  time.Time // when the next shadow may be tried
	fails    int       // shadows in a row that did not live
	restarts int       // shadows replaced
	leaving  bool      // it is being moved to another host
}

const (
	keptDecisions = 256
	keptHandovers = 1024
)

func newVM(m hypervisor.Machine, own hypervisor.Original, p config.Parameters, b bounds, now time.Time) *vm {
	v := &vm{
		machine: m, own: own, account: m.Account, params: p, bounds: b, due: now,
		meter: demand.Meter{OperationSize: p.OperationSize}, operationSize: hypervisor.Unlimited,
		decisions: ring[gnomon.Decision]{max: keptDecisions},
	}
	for r := range v.handovers {
		v.handovers[r].max = keptHandovers
	}
	return v
}

func (v *vm) labels(host string) history.VM {
	return history.VM{Host: host, Name: v.machine.Name, ID: v.machine.ID, Account: v.machine.Account}
}

func (v *vm) policyName() string {
	if v.params.ShadowEnabled {
		return "shadow"
	}
	return "standard"
}

// ring keeps the latest max values.
type ring[T any] struct {
	max    int
	values []T
	next   int
	count  int64 // of all ever added
}

func (r *ring[T]) add(v T) {
	r.count++
	if len(r.values) < r.max {
		r.values = append(r.values, v)
		return
	}
	r.values[r.next] = v
	r.next = (r.next + 1) % r.max
}

// latest returns the last n values, oldest first; all of them if n is 0.
func (r *ring[T]) latest(n int) []T {
	all := append(append([]T(nil), r.values[r.next:]...), r.values[:r.next]...)
	if n > 0 && n < len(all) {
		all = all[len(all)-n:]
	}
	return all
}
