package history

import (
	"time"

	"github.com/gnomon-vm/gnomon"
)

// VM is whose values points are: the labels they carry.
type VM struct {
	Host    string
	Name    string
	ID      gnomon.VMID
	Account string
}

func (v VM) labels(more ...Label) []Label {
	return append([]Label{
		{"host", v.Host}, {"vm", v.Name}, {"vm_id", string(v.ID)}, {"account", v.Account},
	}, more...)
}

// Decisions is the name of the metric that holds decisions.
const Decisions = "gnomon_decision"

// Quantity is what of a resource a metric tells.
type Quantity string

// The quantities of a VM.
const (
	Usage       Quantity = "usage"       // what it got
	Demand      Quantity = "demand"      // what it would have taken had nothing limited it
	Allocation  Quantity = "allocation"  // its limit, as observed; absent where there is none
	Reservation Quantity = "reservation" // what is set aside for it
	Forecast    Quantity = "forecast"    // quantiles of its demand over the horizon
	Request     Quantity = "request"     // the total its shadow asked to have ready
	Starved     Quantity = "starved"     // seconds of the last interval in which it wanted more
)

// The quantities of a host.
const (
	Capacity  Quantity = "capacity"  // what it may promise
	Allocated Quantity = "allocated" // the sum of allocations
	Reserved  Quantity = "reserved"  // the sum of reservations
	Free      Quantity = "free"      // the rest
)

// units is the base unit of each resource's metrics, and how many of the
// resource's own units make one of it.
var units = [gnomon.NumResources]struct {
	suffix string
	per    float64
}{
	gnomon.CPU:     {"cores", 1000},
	gnomon.Memory:  {"bytes", 1},
	gnomon.Disk:    {"bytes_per_second", 1},
	gnomon.Network: {"bytes_per_second", 1},
}

// Metric returns the name of the metric of a VM's quantity of a resource:
// gnomon_vm_cpu_usage_cores.
func Metric(r gnomon.Resource, q Quantity) string { return metric("vm", r, q) }

// HostMetric returns the name of the metric of a host's quantity of a
// resource: gnomon_host_cpu_capacity_cores.
func HostMetric(r gnomon.Resource, q Quantity) string { return metric("host", r, q) }

func metric(of string, r gnomon.Resource, q Quantity) string {
	suffix := units[r].suffix
	if q == Starved {
		suffix = "seconds"
	}
	return "gnomon_" + of + "_" + r.String() + "_" + string(q) + "_" + suffix
}

// value returns an amount in the metric's unit: cores, bytes, bytes/s.
func value(r gnomon.Resource, amount int64) float64 { return float64(amount) / units[r].per }

// FromSample returns what one sample adds to the history; reserved is what was
// set aside for the VM at that time.
func FromSample(vm VM, s gnomon.Sample, reserved gnomon.Resources) []Point {
	points := make([]Point, 0, 5*gnomon.NumResources)
	labels := vm.labels()
	add := func(r gnomon.Resource, q Quantity, v float64) {
		points = append(points, Point{Metric: Metric(r, q), Labels: labels, At: s.At, Value: v})
	}
	for r := range gnomon.AllResources() {
		if !s.Known.Has(r) {
			continue
		}
		add(r, Usage, value(r, s.Usage[r]))
		add(r, Demand, value(r, s.Demand[r]))
		if s.Allocation[r] != gnomon.Unlimited {
			add(r, Allocation, value(r, s.Allocation[r]))
		}
		add(r, Reservation, value(r, reserved[r]))
		add(r, Starved, s.Starved[r].Seconds())
	}
	return points
}

// FromWant returns what a forecast made at that time adds to the history: its
// quantiles and, if it asks for one, the level.
func FromWant(vm VM, at time.Time, w gnomon.Want) []Point {
	if !w.Resource.Valid() {
		return nil
	}
	r := w.Resource
	name := Metric(r, Forecast)
	points := []Point{
		{Metric: name, Labels: vm.labels(Label{"quantile", "low"}), At: at, Value: value(r, w.Low)},
		{Metric: name, Labels: vm.labels(Label{"quantile", "median"}), At: at, Value: value(r, w.Median)},
		{Metric: name, Labels: vm.labels(Label{"quantile", "high"}), At: at, Value: value(r, w.High)},
	}
	if w.Level > 0 {
		points = append(points, Point{Metric: Metric(r, Request), Labels: vm.labels(), At: at, Value: value(r, w.Level)})
	}
	return points
}

// FromDecision returns the point of a decision: its amount in cores, bytes or
// bytes/s, at its time; for waste, in those times seconds.
func FromDecision(vm VM, d gnomon.Decision) Point {
	v := float64(d.Amount)
	labels := vm.labels(Label{"kind", string(d.Kind)}, Label{"verdict", string(d.Verdict)})
	if d.Resource.Valid() {
		v = value(d.Resource, d.Amount)
		labels = append(labels, Label{"resource", d.Resource.String()})
	}
	if d.Kind == gnomon.DecideWaste {
		v /= 1000
	}
	return Point{Metric: Decisions, Labels: labels, At: d.At, Value: v, Event: true}
}

// FromLedger returns what the state of a host's book adds to the history.
func FromLedger(host string, at time.Time, capacity, allocated, reserved gnomon.Resources) []Point {
	labels := []Label{{"host", host}}
	points := make([]Point, 0, 4*gnomon.NumResources)
	free := capacity.Sub(allocated).Sub(reserved)
	for r := range gnomon.AllResources() {
		for _, v := range []struct {
			q      Quantity
			amount int64
		}{{Capacity, capacity[r]}, {Allocated, allocated[r]}, {Reserved, reserved[r]}, {Free, free[r]}} {
			points = append(points, Point{Metric: HostMetric(r, v.q), Labels: labels, At: at, Value: value(r, v.amount)})
		}
	}
	return points
}
