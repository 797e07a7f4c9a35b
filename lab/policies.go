package lab

import (
	"io"
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
)

// PolicyInfo tells what a policy is.
type PolicyInfo struct {
	Name, Title string
	Faithful    string    // product, faithful, approximate, control or oracle
	Knob        string    // what the knob is
	Sweep       []float64 // the settings it is swept over, ascending
	Source      string    // where its formulas and constants come from
}

// External is a policy that another program plays: it is asked with a line of
// JSON after each interval and answers with one.
type External struct {
	PolicyInfo

	// Open starts the policy at one setting of its knob, for VMs of which a
	// request comes each interval. What is written to it are requests, what is
	// read from it answers, a line each; it is closed when one play is over.
	Open func(knob float64, interval time.Duration) (io.ReadWriteCloser, error)
}

// policy is one that can be played.
type policy struct {
	PolicyInfo
	sizes   gnomon.ResourceSet // what it sizes; of others there are no outcomes
	control func(knob float64) (controller, error)
}

var (
	margins = []float64{0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5}
	prices  = []float64{0.1, 0.3, 1, 1.5, 2, 3, 4, 6, 10, 25, 60, 160, 400, 1000, 10000, 1e6}
)

var (
	allResources = gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network)
	cpuAndMemory = gnomon.SetOf(gnomon.CPU, gnomon.Memory)
	memoryOnly   = gnomon.SetOf(gnomon.Memory)
)

const (
	here      = "gnomon's laboratory"
	priceKnob = "shortagePrice, the only one that is swept"
)

// table lists the policies in the order of reports.
func table() []policy {
	all := []policy{
		{PolicyInfo{Name: "gnomon", Title: "gnomon: a shadow for each VM, with release: forecast, else at its defaults", Faithful: "product",
			Knob: priceKnob, Sweep: prices, Source: "gnomon"}, allResources, withShadows(true)},
		{PolicyInfo{Name: "gnomon-hold", Title: "gnomon at its defaults: forecasts may only add to the standard path", Faithful: "product",
			Knob: priceKnob, Sweep: prices, Source: "gnomon"}, allResources, withShadows(false)},
		{PolicyInfo{Name: "gnomon-reactive", Title: "gnomon without shadows: the standard path alone", Faithful: "product",
			Knob: "headroom above demand, as a part of it: the default is 0.2", Sweep: margins, Source: "gnomon"}, allResources,
			func(knob float64) (controller, error) { return &product{headroom: int64(math.Round(100 * knob))}, nil }},
	}
	all = append(all, peers()...)
	return append(all, controls()...)
}

// withShadows plays gnomon at a price of shortage; release is whether a forecast may
// lower a VM below what the standard path holds.
func withShadows(release bool) func(float64) (controller, error) {
	return func(price float64) (controller, error) {
		return &product{shadows: true, release: release, price: price, headroom: config.Defaults().HeadroomPercent}, nil
	}
}

// ruled plays a rule on every resource of a set.
func ruled(set gnomon.ResourceSet, make func(knob float64, r gnomon.Resource, s *script) rule) func(float64) (controller, error) {
	return func(knob float64) (controller, error) {
		return &independent{make: func(s *script) sizer {
			rules := &separate{}
			for r := range gnomon.AllResources() {
				if set.Has(r) && s.known.Has(r) {
					rules[r] = make(knob, r, s)
				}
			}
			return rules
		}}, nil
	}
}

func controls() []policy {
	control := func(name, title, knob string, sweep []float64, make func(float64, gnomon.Resource, *script) rule) policy {
		return policy{PolicyInfo{Name: name, Title: title, Faithful: "control", Knob: knob, Sweep: sweep, Source: here}, allResources, ruled(allResources, make)}
	}
	return []policy{
		control("control-static", "One limit for all time: the 99.5th percentile of the whole trace × (1 + margin)", "margin",
			[]float64{-0.75, -0.6, -0.45, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.5, 1, 2}, newFixed),
		control("control-last", "The last demand × (1 + margin)", "margin", margins,
			func(k float64, _ gnomon.Resource, _ *script) rule { return last{k} }),
		control("control-window-max", "The highest demand of 30 s (12 intervals at least) × (1 + margin)", "margin", margins,
			func(k float64, _ gnomon.Resource, s *script) rule {
				return &windowMax{newWindow(controlWindow, controlSteps, s), k}
			}),
		control("control-ewma", "Weighted mean of demand + k deviations, weight 0.1", "k",
			[]float64{0, 0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 20},
			func(k float64, _ gnomon.Resource, _ *script) rule { return &ewma{sigmas: k} }),
		control("control-reactive", "A step up at 100 ms of pressure (traces of 2 s or finer), else the highest demand of 10 s × (1 + step)", "step", margins[1:],
			func(k float64, _ gnomon.Resource, s *script) rule {
				return &reactive{newWindow(holdWindow, holdSteps, s), k}
			}),
		{PolicyInfo{Name: "oracle", Title: "Knows all demand to come and sets each limit just in time", Faithful: "oracle",
			Knob: "none", Sweep: []float64{0}, Source: here}, allResources, func(float64) (controller, error) { return &oracle{}, nil }},
	}
}

// Policies returns the policies that can be played, in the order of reports.
func Policies() []PolicyInfo {
	var out []PolicyInfo
	for _, p := range table() {
		out = append(out, p.PolicyInfo)
	}
	return out
}
