// Package lab runs the product's own decisions in virtual time: core/demand,
// core/plan, core/forecast and core/broker unchanged. Policies see what they
// would see in life: usage held down by the limit, and the wait that tells of
// it.
//
// Evaluate plays the product, its peers and simple rules on traces of real
// machines, on one physics for all that is exact between events. Demand is
// constant between a trace's rows, which are the loop's interval. Limits of CPU,
// disk and network act after 50 or 40 ms; a balloon gives 1.6 GiB/s and takes
// 450 MiB/s, never what is in use. Unmet work waits and is served first come,
// first served; of work that would wait, no more is kept than arrives in 10 s.
// Unmet memory is swapped, into a quarter of the ceiling, beyond which the guest
// is killed. A tenth of each trace, at most 300 rows, is not counted.
//
// Run plays a scenario on hypervisor/simulated.
package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/core/plan"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// tick is the grid on which outcomes of actions are looked for.
const tick = 50 * time.Millisecond

// VM is one VM of a scenario and how it is treated.
type VM struct {
	simulated.Spec
	Floor, Ceiling gnomon.Resources

	// Policy is the broker's. With Policy.Shadow, Plan is its shadow's.
	Policy gnomon.Policy
	Plan   plan.Settings
}

// Scenario is one run.
type Scenario struct {
	Host     simulated.Options
	Capacity gnomon.Resources
	VMs      []VM
	Interval time.Duration // between samples
	Warmup   time.Duration // not counted
	Length   time.Duration // counted
}

// Result is what came of one VM over the counted time.
type Result struct {
	Name    string
	Starved [gnomon.NumResources]time.Duration // as samples tell
	Short   [gnomon.NumResources]time.Duration // as is true
	Mean    [gnomon.NumResources]float64       // allocation, in the resource's unit
	State   broker.VMState                     // at the end
}

// Run runs a scenario. The same scenario gives the same results.
func Run(ctx context.Context, s Scenario) ([]Result, error) {
	r := &run{s: s, host: simulated.New(s.Host), broker: broker.New(broker.Options{}), vms: map[gnomon.VMID]*vm{}}
	if err := r.begin(); err != nil {
		return nil, err
	}
	for r.elapsed() < s.Warmup+s.Length {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.turn(ctx); err != nil {
			return nil, err
		}
	}
	return r.results()
}

type run struct {
	s      Scenario
	host   *simulated.Driver
	broker *broker.Broker
	vms    map[gnomon.VMID]*vm
	order  []*vm
	flying []gnomon.Action
	wake   time.Time
	next   time.Time // sample
	start  time.Time
}

type vm struct {
	VM
	meter   demand.Meter
	planner *plan.Planner
	seq     uint64
	before  simulated.Totals
	result  Result
	samples int
}

func (r *run) elapsed() time.Duration { return r.host.Now().Sub(r.start) }

func (r *run) begin() error {
	r.start = r.host.Now()
	r.next = r.start.Add(r.s.Interval)
	r.step(gnomon.Event{Capacity: &gnomon.Capacity{Total: r.s.Capacity}})
	for _, spec := range r.s.VMs {
		if err := r.host.AddVM(spec.Spec); err != nil {
			return fmt.Errorf("add VM: %w", err)
		}
		v := &vm{VM: spec, result: Result{Name: spec.Name}}
		if spec.Policy.Shadow {
			p, err := plan.New(spec.Plan)
			if err != nil {
				return fmt.Errorf("VM %s: %w", spec.Name, err)
			}
			v.planner = p
		}
		r.vms[spec.ID], r.order = v, append(r.order, v)
		r.step(gnomon.Event{Found: &gnomon.Found{
			VM: gnomon.VM{ID: spec.ID, Name: spec.Name, Floor: spec.Floor, Ceiling: spec.Ceiling,
				Limits: gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network)},
			Policy: spec.Policy, Allocation: spec.Ceiling,
		}})
		if v.planner != nil {
			r.step(gnomon.Event{Attached: &gnomon.Attached{VM: spec.ID, Session: 1}})
		}
	}
	return nil
}

// turn lets one tick pass.
func (r *run) turn(ctx context.Context) error {
	r.host.Advance(tick)
	now := r.host.Now()
	if err := r.land(); err != nil {
		return err
	}
	if !r.wake.IsZero() && !now.Before(r.wake) {
		r.wake = time.Time{}
		r.step(gnomon.Event{Tick: &gnomon.Tick{}})
	}
	if now.Before(r.next) {
		return nil
	}
	r.next = r.next.Add(r.s.Interval)
	for _, v := range r.order {
		if err := r.sample(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// land reports the actions whose effect is there.
func (r *run) land() error {
	flying := r.flying
	r.flying = nil
	for _, a := range flying {
		observed, settled, err := r.host.Settled(a.VM, a.Resource)
		if err != nil {
			return fmt.Errorf("read limit: %w", err)
		}
		if !settled {
			r.flying = append(r.flying, a)
			continue
		}
		r.step(gnomon.Event{Applied: &gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: observed}})
	}
	return nil
}

func (r *run) step(e gnomon.Event) {
	e.At = r.host.Now()
	ready := r.broker.Step(e)
	for _, a := range ready.Actions {
		out := gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: a.From}
		if err := r.host.Begin(a.VM, a.Resource, a.To); err != nil {
			out.Error = err.Error()
			r.step(gnomon.Event{Applied: &out})
			continue
		}
		r.flying = append(r.flying, a)
	}
	r.wake = ready.WakeAt
}

func (r *run) sample(ctx context.Context, v *vm) error {
	counters, err := r.host.Read(ctx, []gnomon.VMID{v.ID})
	if err != nil || len(counters) == 0 {
		return err
	}
	s, ok := v.meter.Next(counters[0])
	if !ok {
		return nil
	}
	r.count(v, s)
	r.step(gnomon.Event{Sampled: &s})
	if v.planner == nil {
		return nil
	}
	v.seq++
	p := v.planner.Observe(plan.Observation{
		Seq: v.seq, At: s.At, Known: s.Known, Usage: s.Usage, Demand: s.Demand, Allocation: s.Allocation, Ceiling: v.Ceiling,
	})
	p.VM, p.Session = v.ID, 1
	r.step(gnomon.Event{Proposed: &p})
	return nil
}

func (r *run) count(v *vm, s gnomon.Sample) {
	if r.elapsed() <= r.s.Warmup {
		v.before, _ = r.host.Totals(v.ID)
		return
	}
	v.samples++
	for res := range gnomon.AllResources() {
		v.result.Starved[res] += s.Starved[res]
		allocation := s.Allocation[res]
		if allocation < 0 {
			allocation = v.Ceiling[res]
		}
		v.result.Mean[res] += float64(allocation)
	}
}

func (r *run) results() ([]Result, error) {
	out := make([]Result, 0, len(r.order))
	for _, v := range r.order {
		totals, err := r.host.Totals(v.ID)
		if err != nil {
			return nil, fmt.Errorf("read totals: %w", err)
		}
		for res := range gnomon.AllResources() {
			v.result.Short[res] = totals.Short[res] - v.before.Short[res]
			v.result.Mean[res] /= float64(max(v.samples, 1))
		}
		v.result.State, _ = r.broker.View(v.ID)
		out = append(out, v.result)
	}
	return out, nil
}
