// Package report turns the laboratory's outcomes into measures, intervals,
// curves and a page to look at.
//
// A policy with a knob is a curve, not a point: of each data set and resource
// the curves of all policies are drawn over each other, and their slack is
// compared at equal violation. Intervals are over VMs, by the bootstrap.
package report

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gnomon-vm/gnomon/lab"
)

// Options say how to sum up. Zero fields take the defaults given with them.
type Options struct {
	Seed      uint64    // of the resamples
	Resamples int       // 1,000
	Targets   []float64 // shares of time in violation, above Floor: 1 % and 0.1 %

	// Command and Machine are printed as what made the report.
	Command, Machine string
}

// Report is what came out.
type Report struct {
	Options  Options
	Policies []lab.PolicyInfo // of those that ran, in the laboratory's order
	Rows     []Row
	Cells    []Cell
	Ranking  []Rank

	outcomes []lab.Outcome
}

// Cell is one data set's resource.
type Cell struct {
	Dataset, Resource string
	VMs               int
	Entries           []Entry // a policy each, in the laboratory's order
}

// Entry is one policy in a cell.
type Entry struct {
	Policy   string
	Points   []Point   // every setting tried
	Curve    Curve     // those worth picking
	At       []Reading // by target
	Interval []Span    // of the slack, by target; High is +Inf where the target was not always kept

	resampled [][]float64 // slack by target and resample, in the draws' order
}

// New sums up outcomes. They must name policies that are known, each VM once
// for each of a policy's settings.
func New(outcomes []lab.Outcome, known []lab.PolicyInfo, o Options) (*Report, error) {
	if len(outcomes) == 0 {
		return nil, errors.New("sum up outcomes: there are none")
	}
	if o.Resamples == 0 {
		o.Resamples = 1000
	}
	if len(o.Targets) == 0 {
		o.Targets = []float64{0.01, 0.001}
	}
	for _, t := range o.Targets {
		if !(t > Floor && t <= 1) {
			return nil, fmt.Errorf("sum up outcomes: target %v: want a share of time above %v, at most 1", t, Floor)
		}
	}
	names := make([]string, len(known))
	for i, p := range known {
		names[i] = p.Name
	}
	for _, out := range outcomes {
		if !slices.Contains(names, out.Policy) {
			return nil, fmt.Errorf("sum up outcomes: unknown policy %q: want one of %v", out.Policy, names)
		}
	}
	outcomes = sortedOf(outcomes, names)
	cells, err := cellsOf(outcomes)
	if err != nil {
		return nil, err
	}
	r := &Report{Options: o, outcomes: outcomes}
	for _, c := range cells {
		draws := drawsOf(o.Seed, c.dataset, c.resource, len(c.vms), o.Resamples)
		out := Cell{Dataset: c.dataset, Resource: c.resource, VMs: len(c.vms)}
		for _, l := range c.lines {
			for _, s := range l.settings {
				r.Rows = append(r.Rows, rowOf(c, l, s, draws))
			}
			out.Entries = append(out.Entries, entryOf(l, draws, o.Targets))
		}
		r.Cells = append(r.Cells, out)
	}
	for _, p := range known {
		if slices.ContainsFunc(outcomes, func(o lab.Outcome) bool { return o.Policy == p.Name }) {
			r.Policies = append(r.Policies, p)
		}
	}
	r.Ranking = r.ranking()
	return r, nil
}

// entryOf draws a policy's curve and reads it at the targets, once for all VMs
// and once for each resample.
func entryOf(l line, draws [][]int, targets []float64) Entry {
	e := Entry{Policy: l.policy}
	e.Points = points(l, everyone(len(l.settings[0].outcomes)))
	e.Curve = NewCurve(e.Points)
	e.resampled = make([][]float64, len(targets))
	for _, drawn := range draws {
		curve := NewCurve(points(l, drawn))
		for i, target := range targets {
			e.resampled[i] = append(e.resampled[i], curve.At(target).Slack)
		}
	}
	for i, target := range targets {
		reading := e.Curve.At(target)
		e.At = append(e.At, reading)
		e.Interval = append(e.Interval, spanOf(reading.Slack, slices.Clone(e.resampled[i])))
	}
	return e
}

// points returns the policy's settings as points, over the VMs drawn.
func points(l line, drawn []int) []Point {
	out := make([]Point, len(l.settings))
	for i, s := range l.settings {
		out[i] = Point{Violation: meanOf(s.violations, drawn), Slack: meanOf(s.slacks, drawn), Knob: s.knob}
	}
	return out
}

// Entry returns the cell's entry of a policy.
func (c Cell) Entry(policy string) (Entry, bool) {
	i := slices.IndexFunc(c.Entries, func(e Entry) bool { return e.Policy == policy })
	if i < 0 {
		return Entry{}, false
	}
	return c.Entries[i], true
}
