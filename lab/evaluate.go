package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
)

// Evaluation says what to play.
type Evaluation struct {
	Traces    []Input
	Resources []string             // by name; nil for all that the traces tell of
	Policies  []string             // by name; nil for all, with the external ones
	Knobs     map[string][]float64 // by policy; where it has none, the policy's own sweep
	External  []External           // policies that other programs play

	// Seed decides which VMs share a host.
	Seed uint64

	// Contention has the VMs of a data set share hosts that have 65 % of the sum
	// of their ceilings; without it each has what it asks for.
	Contention bool
}

const (
	hostGuests = 6    // share a host under contention
	hostShare  = 0.65 // of the sum of ceilings that it has
)

// job is one policy at one setting on one host.
type job struct {
	policy  policy
	knob    float64
	scripts []*script
	share   float64
}

// Evaluate plays every policy at every setting on all traces, on all cores, and
// returns what came of each VM's resources, in the order of traces, policies and
// knobs. The same Evaluation gives the same outcomes. Traces without a metric to
// play are left out; if that leaves none, or names or settings are wrong, it
// returns an error. progress, if not nil, is called after each play, never
// concurrently.
func Evaluate(ctx context.Context, e Evaluation, progress func(done, total int)) ([]Outcome, error) {
	policies, err := e.choose()
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	scripts, err := e.scripts()
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	jobs := e.jobs(policies, e.hosts(scripts))
	results, err := playAll(ctx, jobs, progress)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return slices.Concat(results...), nil
}

// choose returns the policies asked for.
func (e Evaluation) choose() ([]policy, error) {
	all := table()
	for _, x := range e.External {
		all = append(all, policy{x.PolicyInfo, cpuAndMemory, playExternal(x)})
	}
	var chosen []policy
	for _, name := range e.Policies {
		i := slices.IndexFunc(all, func(p policy) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("policy %q unknown: want one of %s", name, strings.Join(namesOf(all), ", "))
		}
		chosen = append(chosen, all[i])
	}
	if e.Policies == nil {
		chosen = all
	}
	for i := range chosen {
		knobs := e.Knobs[chosen[i].Name]
		if knobs == nil {
			continue
		}
		for _, k := range knobs {
			if math.IsNaN(k) || math.IsInf(k, 0) || chosen[i].Name == "gnomon" && !(k >= config.MinShortagePrice && k <= config.MaxShortagePrice) {
				return nil, fmt.Errorf("knob %v of policy %s: want a number as in its sweep, %v", k, chosen[i].Name, chosen[i].Sweep)
			}
		}
		chosen[i].Sweep = knobs
	}
	return chosen, nil
}

func namesOf(policies []policy) []string {
	var names []string
	for _, p := range policies {
		names = append(names, p.Name)
	}
	return names
}

// scripts reads the traces that there is something to play of.
func (e Evaluation) scripts() ([]*script, error) {
	only, err := parseResources(e.Resources)
	if err != nil {
		return nil, err
	}
	var out []*script
	nothing := ErrNothing
	for _, in := range e.Traces {
		s, err := scriptOf(in, only)
		if errors.Is(err, ErrNothing) {
			nothing = fmt.Errorf("play trace %s: %w", in.label(), err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("play trace %s: %w", in.label(), err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, nothing
	}
	return out, nil
}

// hosts groups the scripts that share one: of one data set and interval.
func (e Evaluation) hosts(scripts []*script) (hosts [][]*script) {
	if !e.Contention {
		for _, s := range scripts {
			hosts = append(hosts, []*script{s})
		}
		return hosts
	}
	var rest []*script
	for len(scripts) > 0 {
		first := scripts[0]
		var group []*script
		rest = nil
		for _, s := range scripts {
			if s.input.Dataset == first.input.Dataset && s.interval == first.interval {
				group = append(group, s)
			} else {
				rest = append(rest, s)
			}
		}
		rand.New(rand.NewPCG(e.Seed, 1)).Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		for len(group) > 0 {
			n := min(hostGuests, len(group))
			if left := len(group) - n; left == 1 {
				n++ // rather than a host for one
			}
			hosts, group = append(hosts, group[:n]), group[n:]
		}
		scripts = rest
	}
	return hosts
}

func (e Evaluation) jobs(policies []policy, hosts [][]*script) (jobs []job) {
	for _, scripts := range hosts {
		share := 0.0
		if len(scripts) > 1 {
			share = hostShare
		}
		for _, p := range policies {
			if !slices.ContainsFunc(scripts, func(s *script) bool { return s.known&p.sizes != 0 }) {
				continue
			}
			for _, k := range p.Sweep {
				jobs = append(jobs, job{p, k, scripts, share})
			}
		}
	}
	return jobs
}

// playAll plays jobs on all cores. The results are in the jobs' order.
func playAll(ctx context.Context, jobs []job, progress func(done, total int)) ([][]Outcome, error) {
	results := make([][]Outcome, len(jobs))
	var lock sync.Mutex
	done := 0
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.GOMAXPROCS(0))
	for i, j := range jobs {
		all.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			out, err := j.play(ctx)
			if err != nil {
				return fmt.Errorf("policy %s at %v: %w", j.policy.Name, j.knob, err)
			}
			results[i] = out
			lock.Lock()
			defer lock.Unlock()
			done++
			if progress != nil {
				progress(done, len(jobs))
			}
			return nil
		})
	}
	return results, all.Wait()
}

// play plays one policy at one setting on one host.
func (j job) play(ctx context.Context) ([]Outcome, error) {
	c, err := j.policy.control(j.knob)
	if err != nil {
		return nil, err
	}
	s := newStage(j.scripts, j.share, c)
	err = s.play(ctx)
	if x, ok := c.(io.Closer); ok {
		err = errors.Join(err, x.Close())
	}
	if err != nil {
		return nil, err
	}
	var out []Outcome
	for i, g := range s.guests {
		for r, l := range g.lanes {
			if l == nil || l.tally.seconds == 0 || !j.policy.sizes.Has(gnomon.Resource(r)) {
				continue
			}
			scale := 1.0
			if gnomon.Resource(r) == gnomon.CPU {
				scale = 1.0 / 1000
			}
			o := Outcome{Dataset: g.script.input.Dataset, VM: g.script.input.Trace.Name,
				Resource: gnomon.Resource(r).String(), Policy: j.policy.Name, Knob: j.knob}
			l.tally.into(&o, scale)
			if err := c.fill(i, gnomon.Resource(r), &o, scale); err != nil {
				return nil, err
			}
			out = append(out, o)
		}
	}
	return out, nil
}
