package report

import (
	"cmp"
	"math"
	"slices"

	"github.com/gnomon-vm/gnomon/lab"
)

// What a policy is, as the laboratory's Faithful says.
const (
	Faithful    = "faithful"
	Approximate = "approximate"
	Control     = "control"
	Oracle      = "oracle"
	Product     = "product"
)

// leastSlack keeps ratios finite: less counts as this.
const leastSlack = 0.001

// Rank is a policy's place over all cells and targets.
type Rank struct {
	Policy string

	// Ratio is the geometric mean, over cells and targets, of the policy's slack
	// over that of the best peer there. A target that is not kept counts as
	// slack of 100 %, slack below 0.1 % as 0.1 %.
	Ratio   Span
	Reached int // targets kept, over all cells
	Of      int // all of them
	Best    int // in how many it is at most 0.1 % above the least slack of all but oracles
}

// kinds returns what each policy is.
func (r *Report) kinds() map[string]string {
	kinds := map[string]string{}
	for _, p := range r.Policies {
		kinds[p.Name] = p.Faithful
	}
	return kinds
}

// IsPeer tells the policies that others publish from controls, oracle and the
// product.
func IsPeer(kind string) bool { return kind == Faithful || kind == Approximate }

// counted is a slack as the geometric mean takes it.
func counted(slack float64) float64 {
	if !(slack <= 1) {
		return 1
	}
	return max(slack, leastSlack)
}

// least returns the least slack among the entries that pick accepts.
func least(c Cell, pick func(policy string) bool, slack func(Entry) float64) float64 {
	best := math.Inf(1)
	for _, e := range c.Entries {
		if pick(e.Policy) {
			best = min(best, slack(e))
		}
	}
	return best
}

// ranking orders the policies by how much slack they need against the best peer.
// The best peer is that of each cell, target and resample of its own, which is
// to the peers' advantage. Without a peer the best of all but oracles stands in.
func (r *Report) ranking() []Rank {
	kinds := r.kinds()
	contender := func(p string) bool { return kinds[p] != Oracle }
	peer := func(p string) bool { return IsPeer(kinds[p]) }
	if !slices.ContainsFunc(r.Policies, func(p lab.PolicyInfo) bool { return peer(p.Name) }) {
		peer = contender
	}
	resamples := r.resamples()
	base := make([][]float64, resamples+1) // by resample, the last is of all VMs; cells and targets in turn
	for b := range base {
		for _, c := range r.Cells {
			for t := range r.Options.Targets {
				base[b] = append(base[b], math.Log(counted(least(c, peer, func(e Entry) float64 { return e.slack(t, b) }))))
			}
		}
	}
	var out []Rank
	for _, p := range r.Policies {
		rank := Rank{Policy: p.Name}
		ratios := make([]float64, len(base))
		for b := range base {
			ratios[b] = r.ratio(p.Name, b, base[b])
		}
		rank.Ratio = spanOf(ratios[resamples], ratios[:resamples])
		r.count(&rank, contender)
		out = append(out, rank)
	}
	slices.SortStableFunc(out, func(a, b Rank) int { return cmp.Compare(a.Ratio.Value, b.Ratio.Value) })
	return out
}

// resamples returns how many there are, 0 where no cell has two VMs.
func (r *Report) resamples() int {
	for _, c := range r.Cells {
		if c.VMs > 1 {
			return r.Options.Resamples
		}
	}
	return 0
}

// slack returns the slack at a target in a resample, or of all VMs where there
// is no such resample.
func (e Entry) slack(target, resample int) float64 {
	if resample < len(e.resampled[target]) {
		return e.resampled[target][resample]
	}
	return e.At[target].Slack
}

// ratio returns the geometric mean of the policy's slack over the base, which
// holds logarithms; cells the policy is not in are left out.
func (r *Report) ratio(policy string, resample int, base []float64) float64 {
	sum, n := 0.0, 0
	for i, c := range r.Cells {
		e, ok := c.Entry(policy)
		if !ok {
			continue
		}
		for t := range r.Options.Targets {
			sum += math.Log(counted(e.slack(t, resample))) - base[i*len(r.Options.Targets)+t]
			n++
		}
	}
	return math.Exp(sum / float64(n))
}

func (r *Report) count(rank *Rank, contender func(string) bool) {
	for _, c := range r.Cells {
		e, ok := c.Entry(rank.Policy)
		if !ok {
			continue
		}
		for t := range r.Options.Targets {
			rank.Of++
			if !e.At[t].Reached() {
				continue
			}
			rank.Reached++
			if contender(e.Policy) && e.At[t].Slack <= least(c, contender, func(e Entry) float64 { return e.At[t].Slack })+leastSlack {
				rank.Best++
			}
		}
	}
}

// Verdict is how the product stands in one cell at one target.
type Verdict struct {
	Dataset, Resource          string
	Target                     float64
	Product, Peer, Any, Oracle Standing

	// Ratio is the product's slack over that of Any, counted as in a Rank. Its
	// interval is of the choice of VMs, the same ones for both.
	Ratio Span
}

// Worse and Better report whether the product needs more slack than the best of
// peers and controls, or less, beyond chance: also for other VMs of the kind.
func (v Verdict) Worse() bool  { return v.Ratio.Low > 1 }
func (v Verdict) Better() bool { return v.Ratio.High < 1 }

// Standing is the best policy of a kind, with its slack; none is without a
// policy.
type Standing struct {
	Policy string
	Reading
}

// Verdicts returns for each cell and target the first product, the best peer,
// the best of peers and controls, and the oracle. Of the product's variants only
// the first counts: choosing among them in hindsight would flatter it.
func (r *Report) Verdicts() []Verdict {
	kinds := r.kinds()
	product := ""
	if i := slices.IndexFunc(r.Policies, func(p lab.PolicyInfo) bool { return p.Faithful == Product }); i >= 0 {
		product = r.Policies[i].Name
	}
	var out []Verdict
	for _, c := range r.Cells {
		for t, target := range r.Options.Targets {
			best := func(pick func(policy string) bool) Standing {
				s := Standing{Reading: Reading{Slack: math.Inf(1)}}
				for _, e := range c.Entries {
					if pick(e.Policy) && (s.Policy == "" || e.At[t].Slack < s.Slack) {
						s = Standing{e.Policy, e.At[t]}
					}
				}
				return s
			}
			v := Verdict{
				Dataset: c.Dataset, Resource: c.Resource, Target: target,
				Product: best(func(p string) bool { return p == product }),
				Peer:    best(func(p string) bool { return IsPeer(kinds[p]) }),
				Any:     best(func(p string) bool { return IsPeer(kinds[p]) || kinds[p] == Control }),
				Oracle:  best(func(p string) bool { return kinds[p] == Oracle }),
			}
			v.Ratio = c.ratio(v.Product.Policy, v.Any.Policy, t)
			out = append(out, v)
		}
	}
	return out
}

// Balance counts verdicts on a product that met others: those in which it needs
// more slack than the best of them, and those in which it does, or needs less,
// beyond chance.
type Balance struct{ Of, Above, Worse, Better int }

// BalanceOf counts verdicts.
func BalanceOf(verdicts []Verdict) Balance {
	var b Balance
	for _, v := range verdicts {
		if math.IsNaN(v.Ratio.Value) {
			continue
		}
		b.Of++
		if v.Ratio.Value > 1 {
			b.Above++
		}
		if v.Worse() {
			b.Worse++
		}
		if v.Better() {
			b.Better++
		}
	}
	return b
}

// ratio returns one policy's slack over another's at a target, all NaN if the
// cell lacks either.
func (c Cell) ratio(policy, other string, target int) Span {
	a, ok := c.Entry(policy)
	b, both := c.Entry(other)
	if !ok || !both {
		return spanOf(math.NaN(), nil)
	}
	var resampled []float64
	for i := range a.resampled[target] {
		resampled = append(resampled, counted(a.slack(target, i))/counted(b.slack(target, i)))
	}
	return spanOf(counted(a.At[target].Slack)/counted(b.At[target].Slack), resampled)
}
