package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/trace"
)

func wildInputs(n, rows int) (in []Input) {
	for i := range n {
		in = append(in, Input{Dataset: "d", Trace: wild(uint64(i), string(rune('a'+i)), rows, 1), Cores: 8, Memory: 8 << 30})
	}
	return in
}

// TestEvaluateIsDeterministic plays every policy twice, on hosts of its own and
// on shared ones.
func TestEvaluateIsDeterministic(t *testing.T) {
	for _, contention := range []bool{false, true} {
		e := Evaluation{Traces: wildInputs(2, 150), Seed: 3, Contention: contention, Knobs: map[string][]float64{}}
		for _, p := range Policies() {
			e.Knobs[p.Name] = p.Sweep[len(p.Sweep)/2:][:1]
		}
		a, b := evaluate(t, e), evaluate(t, e)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("contention %v: two runs differ", contention)
		}
		seen := map[string]int{}
		for _, o := range a {
			seen[o.Policy]++
			if !(o.Seconds > 0 && o.Violation <= o.Seconds && o.Slack >= 0 && o.Slack <= 1 && o.Allocation > 0) {
				t.Errorf("outcome out of range: %+v", o)
			}
		}
		for _, p := range Policies() {
			if seen[p.Name] == 0 {
				t.Errorf("no outcome of %s", p.Name)
			}
		}
	}
}

// audit checks at every sample that nobody is told more than it got, and that no
// more is allocated than there is.
type audit struct {
	controller
	t *testing.T
	s *stage
}

func (a *audit) begin(s *stage) error {
	a.s = s
	return a.controller.begin(s)
}

func (a *audit) sampled(i int, s gnomon.Sample) error {
	for r := range gnomon.AllResources() {
		sum := 0.0
		for _, g := range a.s.guests {
			if l := g.lanes[r]; l != nil && !g.gone {
				sum += l.limit
			}
		}
		if sum > a.s.capacity[r]+1 {
			a.t.Fatalf("%s: %v of %v allocated", r, sum, a.s.capacity[r])
		}
		if l := a.s.guests[i].lanes[r]; s.Known.Has(r) && float64(s.Usage[r]) > l.ceiling+1 {
			a.t.Fatalf("%s: usage of %v above the ceiling %v", r, s.Usage[r], l.ceiling)
		}
	}
	return a.controller.sampled(i, s)
}

func TestHostsDoNotGiveWhatTheyHaveNot(t *testing.T) {
	scripts, err := Evaluation{Traces: wildInputs(4, 200)}.scripts()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table() {
		c, err := p.control(p.Sweep[len(p.Sweep)-1])
		if err != nil {
			t.Fatal(err)
		}
		if err := newStage(scripts, 0.4, &audit{controller: c, t: t}).play(t.Context()); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

// TestUsageIsCensored: under a limit below demand, usage tells the limit, and
// pressure tells of more.
func TestUsageIsCensored(t *testing.T) {
	tr := &trace.Trace{Name: "flat", Columns: []trace.Column{{Name: "cpu_cores"}}}
	for k := range 60 {
		tr.Times = append(tr.Times, float64(k))
		tr.Columns[0].Values = append(tr.Columns[0].Values, 2)
	}
	scripts, err := Evaluation{Traces: []Input{{Trace: tr, Cores: 4}}}.scripts()
	if err != nil {
		t.Fatal(err)
	}
	var samples []gnomon.Sample
	held := &independent{make: func(*script) sizer { return &separate{gnomon.CPU: fixed{1000}} }}
	if err := newStage(scripts, 0, &recorder{held, &samples}).play(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range samples[2:] {
		if s.Usage[gnomon.CPU] > 1001 || s.Demand[gnomon.CPU] < 1990 || s.Starved[gnomon.CPU] == 0 {
			t.Fatalf("usage %d, demand %d, starved %v under a limit of 1000 and a demand of 2000",
				s.Usage[gnomon.CPU], s.Demand[gnomon.CPU], s.Starved[gnomon.CPU])
		}
	}
}

type recorder struct {
	controller
	samples *[]gnomon.Sample
}

func (r *recorder) sampled(i int, s gnomon.Sample) error {
	*r.samples = append(*r.samples, s)
	return r.controller.sampled(i, s)
}

func TestEvaluateRefuses(t *testing.T) {
	in := wildInputs(1, 100)
	short := Input{Dataset: "d", Trace: wild(1, "short", 10, 1)}
	silent := Input{Dataset: "d", Trace: wild(1, "silent", 100, 1)}
	silent.Trace.Columns = nil
	for name, c := range map[string]struct {
		e    Evaluation
		want string
	}{
		"policy":   {Evaluation{Traces: in, Policies: []string{"nobody"}}, `policy "nobody" unknown: want one of gnomon,`},
		"knob":     {Evaluation{Traces: in, Knobs: map[string][]float64{"gnomon": {0}}}, "knob 0 of policy gnomon"},
		"resource": {Evaluation{Traces: in, Resources: []string{"gpu"}}, `unknown resource "gpu"`},
		"nothing":  {Evaluation{Traces: []Input{silent}}, "d/silent: nothing to play: no column"},
		"short":    {Evaluation{Traces: []Input{short}}, "d/short: 10 rows: want at least 20"},
		"no rows":  {Evaluation{Traces: []Input{{Dataset: "d", Trace: &trace.Trace{Name: "x"}}}}, "d/x: 0 rows: want at least 20"},
		"no trace": {Evaluation{Traces: []Input{{Dataset: "d"}}}, "play trace d: the trace is missing"},
	} {
		out, err := Evaluate(context.Background(), c.e, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != nil {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Evaluate(ctx, Evaluation{Traces: in}, nil); err == nil {
		t.Error("a cancelled evaluation succeeds")
	}
}

// pipe is a program that answers twice what is used.
type pipe struct {
	io.Reader
	io.WriteCloser
}

func doubling(float64, time.Duration) (io.ReadWriteCloser, error) {
	asked, ask := io.Pipe()
	answer, answered := io.Pipe()
	go func() {
		lines := bufio.NewScanner(asked)
		for lines.Scan() {
			var q struct{ CPU, Mem float64 }
			err := json.Unmarshal(lines.Bytes(), &q)
			if err == nil {
				err = json.NewEncoder(answered).Encode(map[string]any{"cpu": 2 * q.CPU, "mem": 2 * q.Mem, "apply": true})
			}
			if err != nil {
				answered.CloseWithError(err)
				return
			}
		}
		answered.CloseWithError(lines.Err())
	}()
	return pipe{answer, ask}, nil
}

func TestExternalPolicies(t *testing.T) {
	var told time.Duration
	x := External{PolicyInfo: PolicyInfo{Name: "double", Sweep: []float64{1}},
		Open: func(knob float64, interval time.Duration) (io.ReadWriteCloser, error) {
			told = interval
			return doubling(knob, interval)
		}}
	done := 0
	out, err := Evaluate(context.Background(), Evaluation{Traces: wildInputs(1, 300), Policies: []string{"double"}, External: []External{x}},
		func(n, total int) { done = n * 100 / total })
	if err != nil || len(out) != 2 || done != 100 {
		t.Fatalf("%d outcomes, %d %% done, error %v", len(out), done, err)
	}
	if told != time.Second {
		t.Errorf("the program is told of an interval of %v, want the trace's, a second", told)
	}
	for _, o := range out {
		// The limit is at the ceiling before the first answer only.
		if ratio := o.Allocation / o.Demand; ratio < 1.5 || ratio > 2.6 {
			t.Errorf("%s: allocation is %v times demand, want about 2", o.Resource, ratio)
		}
	}
}
