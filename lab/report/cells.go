package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/gnomon-vm/gnomon/lab"
)

// cell is one data set's resource: what is compared with each other.
type cell struct {
	dataset, resource string
	vms               []string
	lines             []line
}

// line is one policy in a cell.
type line struct {
	policy   string
	settings []setting
}

// setting is one position of a policy's knob, with an outcome for each of the
// cell's VMs.
type setting struct {
	knob     float64
	outcomes []lab.Outcome // by the cell's VMs

	// Of each VM the shares that are resampled, 0..1.
	violations, slacks []float64
}

// resourceOrder is the order in which resources are told.
var resourceOrder = []string{"cpu", "memory", "disk", "network"}

func rank(order []string, name string) int {
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

// sortedOf returns the outcomes by data set, resource, policy in the order given,
// knob and VM.
func sortedOf(outcomes []lab.Outcome, policies []string) []lab.Outcome {
	sorted := slices.Clone(outcomes)
	slices.SortStableFunc(sorted, func(a, b lab.Outcome) int {
		return cmp.Or(
			cmp.Compare(a.Dataset, b.Dataset),
			cmp.Compare(rank(resourceOrder, a.Resource), rank(resourceOrder, b.Resource)), cmp.Compare(a.Resource, b.Resource),
			cmp.Compare(rank(policies, a.Policy), rank(policies, b.Policy)), cmp.Compare(a.Policy, b.Policy),
			cmp.Compare(a.Knob, b.Knob), cmp.Compare(a.VM, b.VM))
	})
	return sorted
}

// cellsOf splits sorted outcomes into cells. Every policy must have met the same
// VMs at every setting.
func cellsOf(sorted []lab.Outcome) ([]cell, error) {
	var cells []cell
	for _, o := range sorted {
		if err := check(o); err != nil {
			return nil, err
		}
		if n := len(cells); n == 0 || cells[n-1].dataset != o.Dataset || cells[n-1].resource != o.Resource {
			cells = append(cells, cell{dataset: o.Dataset, resource: o.Resource})
		}
		c := &cells[len(cells)-1]
		if n := len(c.lines); n == 0 || c.lines[n-1].policy != o.Policy {
			c.lines = append(c.lines, line{policy: o.Policy})
		}
		l := &c.lines[len(c.lines)-1]
		if n := len(l.settings); n == 0 || l.settings[n-1].knob != o.Knob {
			l.settings = append(l.settings, setting{knob: o.Knob})
		}
		s := &l.settings[len(l.settings)-1]
		s.outcomes = append(s.outcomes, o)
		s.violations, s.slacks = append(s.violations, violation(o)), append(s.slacks, slack(o))
	}
	for i := range cells {
		if err := cells[i].align(); err != nil {
			return nil, err
		}
	}
	return cells, nil
}

// align fills in the cell's VMs.
func (c *cell) align() error {
	for _, l := range c.lines {
		for _, s := range l.settings {
			vms := make([]string, len(s.outcomes))
			for i, o := range s.outcomes {
				vms[i] = o.VM
			}
			if c.vms == nil {
				c.vms = vms
			}
			if !slices.Equal(c.vms, vms) || len(slices.Compact(vms)) != len(c.vms) {
				return fmt.Errorf("gather outcomes of %s, %s: policy %s at %v met other VMs than the first policy did: want each VM once",
					c.dataset, c.resource, l.policy, s.knob)
			}
		}
	}
	return nil
}

func check(o lab.Outcome) error {
	for _, v := range []struct {
		name     string
		value    float64
		min, max float64
	}{
		{"counted time", o.Seconds, math.SmallestNonzeroFloat64, math.MaxFloat64},
		{"violation", o.Violation, 0, o.Seconds * (1 + 1e-9)},
		{"slack", o.Slack, 0, 1 + 1e-9},
		{"knob", o.Knob, -math.MaxFloat64, math.MaxFloat64},
	} {
		if !(v.value >= v.min && v.value <= v.max) {
			return fmt.Errorf("gather outcome of %s/%s, %s under %s: %s is %v: want %v to %v",
				o.Dataset, o.VM, o.Resource, o.Policy, v.name, v.value, v.min, v.max)
		}
	}
	return nil
}

// violation and slack are a VM's share of time and of allocation, 0..1.
func violation(o lab.Outcome) float64 { return min(1, o.Violation/o.Seconds) }
func slack(o lab.Outcome) float64     { return min(1, o.Slack) }
