package broker_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
)

var update = flag.Bool("update", false, "rewrite the scripts' expected output")

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestScripts runs testdata/*.txt. A line that starts with a word is a command,
// a line that starts with > is what the broker is expected to answer to it, and
// a line that starts with # is for the reader.
//
//	capacity cpu=4 memory=1GiB
//	quota acme cpu=1
//	found web cpu=0.1..2@0.5 [memory=...] [shadow] [headroom=25] [hold=10s] [adopt]
//	  [account=acme] [priority=60]
//	policy web cpu=0.1..1 ...               as found
//	sample web cpu=0.4[/0.6[/200ms]][@0.5]   usage[/demand[/starved]][@limit found]
//	sample web urgent cpu=0.4                 10 ms after what was before
//	  [at=1500ms]                         one that was taken before now
//	propose web cpu=1.5+2s[!20s] [seq=7] [session=1]   level+needIn!lifetime
//	demand web cpu=1
//	applied [web cpu [0.5] [error=text]]  all in flight, or one
//	attach web 1 | detach web 1 | gone web
//	wait 5s                               Tick at every WakeAt on the way
//	state web                             prints the book
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("find scripts: %v, %d found", err, len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("output differs; run with -update and look at the diff\n%s", firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d:\n want %s\n  got %s", i+1, w[i], g[i])
		}
	}
	return "one is longer"
}

type script struct {
	t        *testing.T
	b        *broker.Broker
	now      time.Time
	wake     time.Time
	limits   map[gnomon.VMID]*gnomon.Resources // in force
	inFlight []gnomon.Action
	seq      uint64
	out      strings.Builder
}

func runScript(t *testing.T, text string) string {
	s := &script{t: t, b: broker.New(broker.Options{}), now: epoch, limits: map[gnomon.VMID]*gnomon.Resources{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.command(strings.Fields(line))
		}
	}
	return s.out.String()
}

func (s *script) command(f []string) {
	verb, args := f[0], f[1:]
	var vm gnomon.VMID
	if len(args) > 0 && verb != "capacity" && verb != "wait" {
		vm, args = gnomon.VMID(args[0]), args[1:]
	}
	switch verb {
	case "capacity":
		var total gnomon.Resources
		s.amounts(args, func(r gnomon.Resource, text string) { total[r] = s.amount(r, text) })
		s.step(gnomon.Event{Capacity: &gnomon.Capacity{Total: total}})
	case "quota":
		quota := gnomon.Quota{Account: string(vm)}
		s.amounts(args, func(r gnomon.Resource, text string) { quota.Ahead[r] = s.amount(r, text) })
		s.step(gnomon.Event{Quota: &quota})
	case "found":
		s.found(vm, args)
	case "policy":
		v, p, _ := s.bounds(vm, args)
		s.step(gnomon.Event{Policy: &gnomon.PolicyChanged{VM: vm, Account: v.Account, Policy: p, Limits: v.Limits, Floor: v.Floor, Ceiling: v.Ceiling}})
	case "sample":
		s.sample(vm, args)
	case "propose":
		s.propose(vm, args)
	case "demand":
		var levels gnomon.Resources
		s.amounts(args, func(r gnomon.Resource, text string) { levels[r] = s.amount(r, text) })
		s.seq++
		s.step(gnomon.Event{Demanded: &gnomon.Demanded{VM: vm, Seq: s.seq, Levels: levels}})
	case "applied":
		s.applied(vm, args)
	case "attach":
		s.step(gnomon.Event{Attached: &gnomon.Attached{VM: vm, Session: s.number(args[0])}})
	case "detach":
		s.step(gnomon.Event{Detached: &gnomon.Detached{VM: vm, Session: s.number(args[0])}})
	case "gone":
		s.step(gnomon.Event{Gone: &gnomon.Gone{VM: vm}})
	case "wait":
		s.wait(f[1])
	case "state":
		s.state(vm)
	default:
		s.t.Fatalf("unknown command %q", verb)
	}
}

// step feeds one event and prints what is Ready.
func (s *script) step(e gnomon.Event) {
	e.At = s.now
	ready := s.b.Step(e)
	if ready.Err != nil {
		s.t.Errorf("at %v: %v", s.now.Sub(epoch), ready.Err)
	}
	for _, d := range ready.Decisions {
		s.printf("%s %s %s %s", d.Kind, d.VM, d.Resource, s.decided(d))
	}
	for _, a := range ready.Actions {
		s.printf("DO %d: set %s %s from %s to %s", a.ID, a.VM, a.Resource,
			gnomon.Format(a.Resource, a.From), gnomon.Format(a.Resource, a.To))
		s.inFlight = append(s.inFlight, a)
	}
	for _, a := range ready.Answers {
		for _, g := range a.Grants {
			s.printf("answer %s %s: %s, %s of %s: %s", a.VM, g.Resource, g.Verdict,
				gnomon.Format(g.Resource, g.Got), gnomon.Format(g.Resource, g.Asked), g.Reason)
		}
	}
	if !ready.WakeAt.Equal(s.wake) && !ready.WakeAt.IsZero() {
		s.printf("wake at %v", ready.WakeAt.Sub(epoch))
	}
	s.wake = ready.WakeAt
}

func (s *script) decided(d gnomon.Decision) string {
	amount := gnomon.Format(d.Resource, d.Amount)
	if d.Kind == gnomon.DecideWaste {
		amount = gnomon.Format(d.Resource, d.Amount/1000) + "·s"
	}
	return fmt.Sprintf("%s (%s)", amount, d.Reason)
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, "> "+format+"\n", args...) }

// amounts calls f for each resource=text argument and returns the others.
func (s *script) amounts(args []string, f func(gnomon.Resource, string)) (others []string) {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		r, err := gnomon.ParseResource(key)
		if err != nil {
			others = append(others, arg)
			continue
		}
		f(r, value)
	}
	return others
}

func (s *script) amount(r gnomon.Resource, text string) int64 {
	if text == "unlimited" {
		return gnomon.Unlimited
	}
	v, err := gnomon.ParseAmount(r, text)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *script) number(text string) uint64 {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *script) duration(text string) time.Duration {
	v, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *script) bounds(id gnomon.VMID, args []string) (gnomon.VM, gnomon.Policy, gnomon.Resources) {
	vm := gnomon.VM{ID: id, Name: string(id)}
	policy := gnomon.Policy{HeadroomPercent: 25, Hold: 10 * time.Second}
	var found gnomon.Resources
	for _, other := range s.amounts(args, func(r gnomon.Resource, text string) {
		text, at, _ := strings.Cut(text, "@")
		lo, hi, _ := strings.Cut(text, "..")
		vm.Limits = vm.Limits.With(r)
		vm.Floor[r], vm.Ceiling[r] = s.amount(r, lo), s.amount(r, hi)
		if at != "" {
			found[r] = s.amount(r, at)
		}
	}) {
		switch key, value, _ := strings.Cut(other, "="); key {
		case "shadow":
			policy.Shadow = true
		case "headroom":
			policy.HeadroomPercent = int64(s.number(value))
		case "adopt":
			policy.Adopt = true
		case "hold":
			policy.Hold = s.duration(value)
		case "account":
			vm.Account = value
		case "priority":
			policy.Priority = int64(s.number(value))
		default:
			s.t.Fatalf("unknown argument %q", other)
		}
	}
	return vm, policy, found
}

func (s *script) found(id gnomon.VMID, args []string) {
	vm, policy, found := s.bounds(id, args)
	s.limits[id] = &found
	s.step(gnomon.Event{Found: &gnomon.Found{VM: vm, Policy: policy, Allocation: found}})
}

// sample tells of the second that passes with it.
func (s *script) sample(id gnomon.VMID, args []string) {
	sample := gnomon.Sample{VM: id, Interval: time.Second, Allocation: *s.limits[id]}
	others := s.amounts(args, func(r gnomon.Resource, text string) {
		sample.Known = sample.Known.With(r)
		text, limit, behind := strings.Cut(text, "@") // the limit found, if not the one set
		if behind {
			sample.Allocation[r] = s.amount(r, limit)
		}
		parts := strings.Split(text, "/")
		sample.Usage[r] = s.amount(r, parts[0])
		sample.Demand[r] = sample.Usage[r]
		if len(parts) > 1 {
			sample.Demand[r] = s.amount(r, parts[1])
		}
		if len(parts) > 2 {
			sample.Starved[r] = s.duration(parts[2])
		}
	})
	switch {
	case slices.Equal(others, []string{"urgent"}):
		sample.Urgent, sample.Interval = true, 10*time.Millisecond
		s.now = s.now.Add(sample.Interval)
		sample.At = s.now
	case len(others) > 0:
		sample.At = epoch.Add(s.duration(strings.TrimPrefix(others[0], "at=")))
	default:
		s.now = s.now.Add(time.Second)
		sample.At = s.now
		*s.limits[id] = sample.Allocation
	}
	s.step(gnomon.Event{Sampled: &sample})
}

func (s *script) propose(id gnomon.VMID, args []string) {
	s.seq++
	p := gnomon.Proposal{VM: id, Session: 1, Seq: s.seq, At: s.now}
	for _, other := range s.amounts(args, func(r gnomon.Resource, text string) {
		w := gnomon.Want{Resource: r, Lifetime: 20 * time.Second, Model: "holt"}
		text, lifetime, ok := strings.Cut(text, "!")
		if ok {
			w.Lifetime = s.duration(lifetime)
		}
		level, in, _ := strings.Cut(text, "+")
		w.Level, w.NeedIn = s.amount(r, level), s.duration(in)
		w.High = w.Level
		p.Wants = append(p.Wants, w)
	}) {
		switch key, value, _ := strings.Cut(other, "="); key {
		case "seq":
			p.Seq = s.number(value)
		case "session":
			p.Session = s.number(value)
		default:
			s.t.Fatalf("unknown argument %q", other)
		}
	}
	s.step(gnomon.Event{Proposed: &p})
}

// applied reports actions in flight: without arguments all, as asked.
func (s *script) applied(vm gnomon.VMID, args []string) {
	pending := s.inFlight
	s.inFlight = nil
	for i, a := range pending {
		if vm != "" && (a.VM != vm || len(args) > 0 && a.Resource.String() != args[0]) {
			s.inFlight = append(s.inFlight, pending[i])
			continue
		}
		out := gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: a.To}
		for _, arg := range args[min(1, len(args)):] {
			if text, ok := strings.CutPrefix(arg, "error="); ok {
				out.Error = text
			} else {
				out.Observed = s.amount(a.Resource, arg)
			}
		}
		if limits := s.limits[a.VM]; limits != nil {
			limits[a.Resource] = out.Observed
		}
		s.step(gnomon.Event{Applied: &out})
	}
}

func (s *script) wait(text string) {
	end := s.now.Add(s.duration(text))
	for !s.wake.IsZero() && !s.wake.After(end) {
		s.now = s.wake
		s.printf("at %v:", s.now.Sub(epoch))
		s.step(gnomon.Event{Tick: &gnomon.Tick{}})
	}
	s.now = end
	s.step(gnomon.Event{Tick: &gnomon.Tick{}})
}

func (s *script) state(id gnomon.VMID) {
	v, ok := s.b.View(id)
	if !ok {
		s.printf("no VM %s", id)
		return
	}
	for r, v := range v.Resources {
		if v == nil {
			continue
		}
		f := func(amount int64) string { return gnomon.Format(gnomon.Resource(r), amount) }
		s.printf("%v: allocated %s, base %s, reserved %s, prepared %s, lent %s; hits %d, misses %d; free %s",
			gnomon.Resource(r), f(v.Allocated), f(v.Base), f(v.Reserved), f(v.Prepared), f(v.Lent),
			v.Hits, v.Misses, f(s.b.Totals()[r].Free))
	}
}
