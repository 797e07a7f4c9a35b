package report

import (
	"cmp"
	"math"
	"slices"

	"github.com/gnomon-vm/gnomon/lab"
)

// Change is how a policy's slack at a target differs between two runs.
type Change struct {
	Dataset, Resource, Policy string
	Target                    float64
	Before, After             float64 // slack, 0..1; +Inf where the target is not kept

	// Difference is After - Before with its interval over resamples of the VMs:
	// of both runs the same where they met the same VMs. NaN where a run does
	// not keep the target.
	Difference Span
	Paired     bool

	// Beyond tells that the difference is not within what the choice of VMs
	// explains: its interval leaves 0 out, or the target is kept in one run only.
	Beyond bool
}

// Compare returns what both runs have, largest difference first: the cells,
// policies and targets of after that are in before too.
func Compare(before, after []lab.Outcome, o Options) ([]Change, error) {
	known := policiesOf(before, after)
	a, err := New(before, known, o)
	if err != nil {
		return nil, err
	}
	b, err := New(after, known, o)
	if err != nil {
		return nil, err
	}
	vms := func(outcomes []lab.Outcome, c Cell) []string {
		var names []string
		for _, o := range outcomes {
			if o.Dataset == c.Dataset && o.Resource == c.Resource {
				names = append(names, o.VM)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	var out []Change
	for _, cb := range b.Cells {
		i := slices.IndexFunc(a.Cells, func(c Cell) bool { return c.Dataset == cb.Dataset && c.Resource == cb.Resource })
		if i < 0 {
			continue
		}
		ca := a.Cells[i]
		paired := slices.Equal(vms(before, ca), vms(after, cb))
		for _, eb := range cb.Entries {
			ea, ok := ca.Entry(eb.Policy)
			if !ok {
				continue
			}
			for t, target := range b.Options.Targets {
				c := changeOf(ea, eb, t, paired)
				c.Dataset, c.Resource, c.Policy, c.Target = cb.Dataset, cb.Resource, eb.Policy, target
				out = append(out, c)
			}
		}
	}
	slices.SortStableFunc(out, func(x, y Change) int { return cmp.Compare(y.size(), x.size()) })
	return out, nil
}

// size orders changes.
func (c Change) size() float64 {
	if math.IsNaN(c.Difference.Value) {
		if c.Beyond {
			return math.Inf(1)
		}
		return 0
	}
	return math.Abs(c.Difference.Value)
}

func changeOf(a, b Entry, target int, paired bool) Change {
	c := Change{Before: a.At[target].Slack, After: b.At[target].Slack, Paired: paired}
	if !a.At[target].Reached() || !b.At[target].Reached() {
		c.Difference = Span{math.NaN(), math.NaN(), math.NaN()}
		c.Beyond = a.At[target].Reached() != b.At[target].Reached()
		return c
	}
	n := min(len(a.resampled[target]), len(b.resampled[target]))
	differences := make([]float64, 0, n)
	for i := range n {
		j := i
		if !paired {
			j = (i + n/2) % n // the draws of another resample
		}
		d := b.resampled[target][i] - a.resampled[target][j]
		if !math.IsNaN(d) {
			differences = append(differences, d)
		}
	}
	c.Difference = spanOf(c.After-c.Before, differences)
	c.Beyond = c.Difference.Low > 0 || c.Difference.High < 0
	return c
}

// policiesOf returns the policies that the runs name, which the laboratory need
// not know any more.
func policiesOf(runs ...[]lab.Outcome) []lab.PolicyInfo {
	seen := map[string]bool{}
	var out []lab.PolicyInfo
	for _, run := range runs {
		for _, o := range run {
			if !seen[o.Policy] {
				seen[o.Policy] = true
				out = append(out, lab.PolicyInfo{Name: o.Policy})
			}
		}
	}
	return out
}
