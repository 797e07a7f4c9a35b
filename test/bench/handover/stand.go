package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/test/bench/rig"
)

// What the VM is given before its demand and is to get, and what its neighbour
// holds of it until then.
var sizes = [gnomon.NumResources]struct{ small, large, floor int64 }{
	gnomon.CPU:     {100, 1000, 50},
	gnomon.Memory:  {160 << 20, 288 << 20, 100 << 20},
	gnomon.Disk:    {2_000_000, 100_000_000, 100_000},
	gnomon.Network: {2_000_000, 100_000_000, 100_000},
}

// hold is for how long a VM keeps what it has not needed; busy is how long ago
// the neighbour was found busy: it has not begun to shrink, and can be taken
// from.
const (
	hold = 4 * time.Second
	busy = 2 * time.Second
)

// stand is two guests on one host whose every bit is allocated: what one is to
// get the other holds, and uses little of. Between them arbitrates a broker, as
// in the host daemon, with the same driver.
type stand struct {
	driver     hypervisor.Driver
	source     pressure.Source
	vm, donor  *rig.Guest
	iterations int64        // of 100 ms of work on a whole core
	ordered    atomic.Int64 // when the latest work was, in Unix nanoseconds

	mu     sync.Mutex
	broker *broker.Broker
	meters map[gnomon.VMID]*demand.Meter
	acted  time.Duration // what the latest action took
	failed error
	flying sync.WaitGroup
}

func newStand(ctx context.Context, r *rig.Rig) (*stand, error) {
	s := &stand{driver: r.Driver, source: r.Pressure}
	spec := rig.Spec{MaxMiB: 320, MiB: 160, Equipped: true}
	for _, g := range []**rig.Guest{&s.vm, &s.donor} {
		var err error
		if *g, err = r.Start(ctx, spec); err != nil {
			return nil, err
		}
	}
	for _, g := range []*rig.Guest{s.vm, s.donor} {
		if err := g.AwaitReady(ctx); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(os.Stderr, "events come from %s %v\n", r.Pressure.Name(), r.PressureWhy)
	return s, s.calibrate(ctx)
}

// follow has the kernel tell of the VM's onsets, also at the queues that limits
// have made by now.
func (s *stand) follow(ctx context.Context) error {
	machines, err := s.driver.Machines(ctx)
	if err != nil {
		return err
	}
	for _, m := range machines {
		if p := m.Presence; m.ID == s.vm.ID {
			return s.source.Follow(pressure.Subject{VM: m.ID, Process: p.Process, VCPUs: p.VCPUs, Interfaces: p.Interfaces})
		}
	}
	return fmt.Errorf("follow %s: it is not listed", s.vm.Name)
}

// calibrate finds how many iterations take 100 ms on a whole core: what
// disturbs only slows it down, so that the best of several tries counts.
func (s *stand) calibrate(ctx context.Context) error {
	const tries, iterations = 100, int64(1 << 20)
	best := time.Duration(math.MaxInt64)
	for range tries {
		done, err := s.vm.Do(ctx, gnomon.CPU, iterations, nil)
		if err != nil {
			return fmt.Errorf("calibrate: %w", err)
		}
		best = min(best, done.Took)
	}
	s.iterations = int64(float64(iterations) * float64(100*time.Millisecond) / float64(best))
	return nil
}

// set gives both guests their limits, and those of the other resources back.
func (s *stand) set(ctx context.Context, r gnomon.Resource, vm, donor int64) error {
	for _, l := range []struct {
		id     gnomon.VMID
		amount int64
	}{{s.vm.ID, vm}, {s.donor.ID, donor}} {
		if _, err := s.driver.Apply(ctx, l.id, r, l.amount, hypervisor.Terms{}); err != nil {
			return err
		}
	}
	return nil
}

// begin tells a new broker how things stand.
func (s *stand) begin(r gnomon.Resource) {
	z := sizes[r]
	s.mu.Lock()
	s.broker, s.failed, s.acted = broker.New(broker.Options{}), nil, 0
	s.meters = map[gnomon.VMID]*demand.Meter{s.vm.ID: {}, s.donor.ID: {}}
	s.mu.Unlock()
	var capacity gnomon.Resources
	capacity[r] = z.small + z.large
	then := time.Now().Add(-busy)
	s.step(gnomon.Event{At: then, Started: &gnomon.Started{}})
	s.step(gnomon.Event{At: then, Capacity: &gnomon.Capacity{Total: capacity}})
	for id, amount := range map[gnomon.VMID]int64{s.vm.ID: z.small, s.donor.ID: z.large} {
		found := gnomon.Found{
			VM:     gnomon.VM{ID: id, Name: string(id), Limits: gnomon.SetOf(r)},
			Policy: gnomon.Policy{Shadow: true, HeadroomPercent: 20, Hold: hold},
		}
		found.VM.Floor[r], found.VM.Ceiling[r], found.Allocation[r] = z.floor, z.large, amount
		s.step(gnomon.Event{At: then, Found: &found})
	}
}

// step tells the broker of an event and carries out what it says.
func (s *stand) step(e gnomon.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.At.IsZero() {
		e.At = time.Now()
	}
	ready := s.broker.Step(e)
	if ready.Err != nil {
		s.failed = ready.Err
	}
	for _, act := range ready.Actions {
		s.flying.Go(func() { s.apply(act) })
	}
}

func (s *stand) apply(act gnomon.Action) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	observed, err := s.driver.Apply(ctx, act.VM, act.Resource, act.To, hypervisor.Terms{})
	out := gnomon.Applied{Action: act.ID, VM: act.VM, Resource: act.Resource, Observed: observed}
	if err != nil {
		out.Error = err.Error()
	}
	s.mu.Lock()
	s.acted = time.Since(begun)
	s.mu.Unlock()
	s.step(gnomon.Event{Applied: &out})
}

// sample reads both guests and tells the broker; it returns the VM's sample.
func (s *stand) sample(ctx context.Context) (gnomon.Sample, error) {
	counters, err := s.driver.Read(ctx, []gnomon.VMID{s.vm.ID, s.donor.ID})
	if err != nil {
		return gnomon.Sample{}, err
	}
	var own gnomon.Sample
	for _, c := range counters {
		sample, ok := s.meters[c.VM].Next(c)
		if !ok {
			continue
		}
		if c.VM == s.vm.ID {
			own = sample
		}
		s.step(gnomon.Event{Sampled: &sample})
	}
	return own, nil
}

// state is what the broker knows of the VM's resource.
func (s *stand) state(r gnomon.Resource) *broker.ResourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, _ := s.broker.View(s.vm.ID)
	return v.Resources[r]
}
