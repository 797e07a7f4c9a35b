package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon/lab"
)

var testPolicies = []lab.PolicyInfo{
	{Name: "gnomon", Title: "the product", Faithful: Product, Knob: "quantile"},
	{Name: "gnomon-reactive", Title: "without a shadow", Faithful: Product},
	{Name: "neon", Title: "Neon <autoscaler>", Faithful: Approximate, Knob: "factor", Source: "its code"},
	{Name: "neon-fast", Title: "Neon at 1 s", Faithful: Approximate, Knob: "factor"},
	{Name: "control-last", Title: "last value", Faithful: Control, Knob: "margin"},
	{Name: "oracle", Title: "knows all", Faithful: Oracle},
}

// outcome is of a VM that ran for an hour.
func outcome(dataset, vm, resource, policy string, knob, violation, slack float64) lab.Outcome {
	return lab.Outcome{
		Dataset: dataset, VM: vm, Resource: resource, Policy: policy, Knob: knob, Seconds: 3600,
		Violation: violation * 3600, Slack: slack, Demand: 1, Allocation: 2, Unmet: 36, DelayP99: 0.5, Resizes: 6,
	}
}

// sample is of policies whose slack at equal violation is known: every policy's
// points are at 10 %, 1 % and 0.01 % violation; neon's slack is 0.2, 0.4, 0.8,
// gnomon's half of it, the control's a tenth more.
func sample(vms int) []lab.Outcome {
	var out []lab.Outcome
	for _, dataset := range []string{"b", "a"} {
		for _, resource := range []string{"memory", "cpu"} {
			for v := range vms {
				spread := 0.02 * float64(v-vms/2)
				for i, violation := range []float64{0.1, 0.01, 0.0001} {
					slack := []float64{0.2, 0.4, 0.8}[i] + spread
					for policy, factor := range map[string]float64{"gnomon": 0.5, "neon": 1, "control-last": 1.1} {
						o := outcome(dataset, fmt.Sprint("vm", v), resource, policy, float64(i), violation, slack*factor)
						if policy == "gnomon" {
							o.Hits, o.Misses, o.LeadP50, o.Waste = 3, 1, 2.5, 360
						}
						out = append(out, o)
					}
				}
				out = append(out,
					outcome(dataset, fmt.Sprint("vm", v), resource, "oracle", 0, 0, 0.05),
					outcome(dataset, fmt.Sprint("vm", v), resource, "neon-fast", 1, 0.05, 0.1))
			}
		}
	}
	return out
}

func newReport(t *testing.T, outcomes []lab.Outcome) *Report {
	t.Helper()
	r, err := New(outcomes, testPolicies, Options{Seed: 7, Resamples: 200, Command: "gnomon lab run --x <y>", Machine: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestRowsAreMeansOverVMs(t *testing.T) {
	a, b := outcome("d", "a", "cpu", "gnomon", 1, 0.02, 0.5), outcome("d", "b", "cpu", "gnomon", 1, 0, 0.3)
	a.Kills, a.Hits, a.Misses, a.LeadP50, a.Waste, a.DelayP99 = 1, 3, 1, 4, 72, 1.5
	b.Seconds, b.Violation = 7200, 0
	r := newReport(t, []lab.Outcome{a, b})
	row := r.Rows[0]
	if row.VMs != 2 || !near(row.Hours, 3) || !near(row.Violation.Value, 0.01) || !near(row.Slack.Value, 0.4) {
		t.Errorf("got %+v", row)
	}
	if !near(row.ResizesPerHour, 4) || !near(row.KillsPerDay, 8) || !near(row.HitRate, 0.75) || !near(row.Lead, 4) {
		t.Errorf("got %+v", row)
	}
	if !near(row.Unmet, 72) || !near(row.UnmetShare, 72.0/10800) || !near(row.WasteShare, 72.0/21600) || !near(row.DelayP99, 1) || row.DelayWorst != 1.5 {
		t.Errorf("got %+v", row)
	}
	if !near(row.Slack.Low, 0.3) || !near(row.Slack.High, 0.5) {
		t.Errorf("the interval of two VMs is %+v, want from one to the other", row.Slack)
	}
}

func TestSlackAtEqualViolation(t *testing.T) {
	r := newReport(t, sample(8))
	if len(r.Cells) != 4 || r.Cells[0].Dataset != "a" || r.Cells[0].Resource != "cpu" || r.Cells[1].Resource != "memory" {
		t.Fatalf("cells %v", r.Cells)
	}
	for policy, want := range map[string][2]float64{"neon": {0.39, 0.59}, "gnomon": {0.195, 0.295}, "oracle": {0.04, 0.04}} {
		e, ok := r.Cells[0].Entry(policy)
		if !ok {
			t.Fatalf("no entry of %s", policy)
		}
		for i := range want {
			got := e.At[i].Slack
			if policy == "oracle" {
				want[i] = 0.05
			}
			if !near(got, want[i]) || !(e.Interval[i].Low <= got && got <= e.Interval[i].High) {
				t.Errorf("%s at target %d: %v in %+v, want %v", policy, i, got, e.Interval[i], want[i])
			}
		}
		if policy != "oracle" && !(e.Interval[0].Low < e.Interval[0].High) {
			t.Errorf("%s: VMs differ, yet the interval is %+v", policy, e.Interval[0])
		}
	}
	if e, _ := r.Cells[0].Entry("neon-fast"); e.At[0].Reached() || e.At[1].Reached() {
		t.Errorf("5 %% of violation keeps a target: %+v", e.At)
	}
}

func TestRankingIsRelativeToTheBestPeer(t *testing.T) {
	r := newReport(t, sample(8))
	ratios := map[string]Rank{}
	for _, rank := range r.Ranking {
		ratios[rank.Policy] = rank
	}
	if g := ratios["gnomon"]; !near(g.Ratio.Value, 0.5) || g.Reached != 8 || g.Of != 8 || g.Best != 8 || !near(g.Ratio.Low, 0.5) || !near(g.Ratio.High, 0.5) {
		t.Errorf("gnomon: %+v, want half of neon's slack in every resample", g)
	}
	if n := ratios["neon"]; !near(n.Ratio.Value, 1) || n.Best != 0 {
		t.Errorf("neon: %+v", n)
	}
	if f := ratios["neon-fast"]; f.Reached != 0 || !near(f.Ratio.Value, 1/math.Sqrt(0.39*0.59)) {
		t.Errorf("neon-fast keeps no target, which counts as all slack: %+v", f)
	}
	if r.Ranking[0].Policy != "oracle" || r.Ranking[1].Policy != "gnomon" {
		t.Errorf("order %v", r.Ranking)
	}
	v := r.Verdicts()[0]
	if v.Product.Policy != "gnomon" || v.Peer.Policy != "neon" || v.Any.Policy != "neon" || v.Oracle.Policy != "oracle" {
		t.Errorf("verdict %+v", v)
	}
	if !near(v.Ratio.Value, 0.5) || !v.Better() || v.Worse() {
		t.Errorf("ratio %+v, want half in every resample", v.Ratio)
	}
}

// That one VM of many is better off with another policy may be chance: with
// others of the kind it is not there.
func TestVerdictTellsChanceApart(t *testing.T) {
	outcomes := sample(8)
	for i := range outcomes {
		switch o := &outcomes[i]; {
		case o.Policy != "gnomon":
		case o.VM == outcomes[0].VM:
			o.Slack = 1
		default:
			o.Slack *= 1.9
		}
	}
	for _, v := range newReport(t, outcomes).Verdicts() {
		if !(v.Ratio.Value > 1) || v.Worse() || v.Better() {
			t.Errorf("ratio %+v: want it above 1 by chance", v.Ratio)
		}
	}
}

// A variant of the product that happens to be better somewhere is not taken for
// the product.
func TestVerdictsAreOfTheFirstProduct(t *testing.T) {
	outcomes := sample(4)
	for _, o := range outcomes {
		if o.Policy == "gnomon" {
			o.Policy, o.Slack = "gnomon-reactive", o.Slack/2
			outcomes = append(outcomes, o)
		}
	}
	for _, v := range newReport(t, outcomes).Verdicts() {
		if v.Product.Policy != "gnomon" {
			t.Errorf("the verdict is of %s", v.Product.Policy)
		}
	}
}

func TestOneVMHasNoInterval(t *testing.T) {
	r := newReport(t, sample(1))
	e, _ := r.Cells[0].Entry("neon")
	if !math.IsNaN(e.Interval[0].Low) || !math.IsNaN(r.Rows[0].Slack.High) || !math.IsNaN(r.Ranking[0].Ratio.Low) {
		t.Errorf("one VM has an interval: %+v", e.Interval[0])
	}
}

func TestNewRefuses(t *testing.T) {
	good := outcome("d", "a", "cpu", "neon", 1, 0.1, 0.5)
	for name, c := range map[string]struct {
		change func(o *lab.Outcome)
		want   string
	}{
		"unknown policy":   {func(o *lab.Outcome) { o.Policy = "neo" }, `unknown policy "neo"`},
		"no time":          {func(o *lab.Outcome) { o.Seconds = 0 }, "counted time is 0"},
		"too much":         {func(o *lab.Outcome) { o.Violation = 4000 }, "violation is 4000"},
		"not a number":     {func(o *lab.Outcome) { o.Slack = math.NaN() }, "slack is NaN"},
		"another VM":       {func(o *lab.Outcome) { o.VM, o.Knob = "b", 2 }, "met other VMs"},
		"the same VM":      {func(*lab.Outcome) {}, "want each VM once"},
		"knob of infinity": {func(o *lab.Outcome) { o.Knob = math.Inf(1) }, "knob is +Inf"},
	} {
		bad := good
		c.change(&bad)
		if _, err := New([]lab.Outcome{good, bad}, testPolicies, Options{Resamples: 10}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := New(nil, testPolicies, Options{}); err == nil {
		t.Error("no outcome is a report")
	}
	if _, err := New([]lab.Outcome{good}, testPolicies, Options{Targets: []float64{0}}); err == nil {
		t.Error("a target of 0 cannot be on a logarithmic axis")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "out")
	r := newReport(t, sample(8))
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	first := map[string]string{}
	for _, name := range files {
		first[name] = readFile(t, filepath.Join(dir, name))
	}
	summary, err := csv.NewReader(strings.NewReader(first[summaryFile])).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(summary[0], ","); got != "dataset,resource,policy,violation_target_pct,slack_pct,slack_lo,slack_hi" {
		t.Errorf("header %s", got)
	}
	lines := map[string]string{}
	for _, l := range summary[1:] {
		lines[strings.Join(l[:4], ",")] = l[4]
	}
	if len(lines) != 4*5*2 || lines["a,cpu,neon,1"] != "39" || lines["a,cpu,neon,0.1"] != "59" || lines["a,cpu,neon-fast,0.1"] != "" {
		t.Errorf("summary %v", lines)
	}
	if !strings.HasPrefix(first[resultsFile], "dataset,resource,policy,knob,vms,violation_pct,slack_pct,") {
		t.Errorf("results start with %.80s", first[resultsFile])
	}
	if n := strings.Count(first[resultsFile], "\n"); n != 1+4*(3*3+2) {
		t.Errorf("%d lines of results", n)
	}
	again := newReport(t, sample(8)) // the same run replaces it by the same
	if err := again.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if readFile(t, filepath.Join(dir, name)) != first[name] {
			t.Errorf("%s differs though nothing changed", name)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("left beside the report: %v, %v", left, err)
	}
	outcomes, err := ReadOutcomes(dir)
	if err != nil || len(outcomes) != len(r.outcomes) || outcomes[5] != again.outcomes[5] {
		t.Errorf("read %d outcomes, %v", len(outcomes), err)
	}
}

func TestWriteKeepsWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(keep, []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newReport(t, sample(2)).Write(dir); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("got %v", err)
	}
	if readFile(t, keep) != "years of work" {
		t.Error("it was overwritten")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("something half-written: %v", left)
	}
}

func TestPageStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := newReport(t, sample(8)).writePage(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, foreign := range []string{"http://", "https://", "<script", "@import", "url(", "ZgotmplZ", "NaN", "Inf"} {
		if strings.Contains(text, foreign) {
			t.Errorf("the page holds %s", foreign)
		}
	}
	for _, want := range []string{
		"prefers-color-scheme:dark", "gnomon lab run --x &lt;y&gt;", "Neon &lt;autoscaler&gt;",
		"a · cpu", "b · memory", "not kept", ".p0{--c:var(--product)", "slack at 1 %", "19.5 % (",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(text, "<polyline"); n != 4*5 {
		t.Errorf("%d curves, want 20", n)
	}
}

func TestCompare(t *testing.T) {
	before := sample(8)
	after := sample(8)
	for i := range after {
		if after[i].Policy == "gnomon" && after[i].Resource == "cpu" {
			after[i].Slack *= 0.8
		}
	}
	changes, err := Compare(before, after, Options{Seed: 1, Resamples: 200})
	if err != nil {
		t.Fatal(err)
	}
	beyond := 0
	for _, c := range changes {
		want := c.Policy == "gnomon" && c.Resource == "cpu"
		if c.Beyond != want || !c.Paired {
			t.Errorf("%+v: beyond %v, want %v", c, c.Beyond, want)
		}
		if c.Beyond {
			beyond++
		}
	}
	if beyond != 4 || !changes[0].Beyond || changes[0].Difference.Value >= 0 {
		t.Errorf("%d changes beyond, first %+v", beyond, changes[0])
	}
	few, err := Compare(before, sample(5), Options{Seed: 1, Resamples: 200})
	if err != nil || len(few) == 0 || few[0].Paired || few[0].Beyond {
		t.Errorf("other VMs of the same kind differ: %+v, %v", few[0], err)
	}
}

func TestParseOutcomesRefuses(t *testing.T) {
	header := strings.Join(outcomesHeader, ",") + "\n"
	row := "d,vm,cpu,neon,1,10,1,0,1,2,0.5,0,3,0,0,0,0,0\n"
	for text, want := range map[string]string{
		"":                             "no outcome",
		header:                         "no outcome",
		"a,b\n":                        "wrong number of fields",
		header + "d,vm\n":              "line 2",
		"x" + header[1:] + row:         `column 1 is "xataset"`,
		header + row + row[:15] + "\n": "line 3",
		header + strings.Replace(row, ",10,", ",ten,", 1): ":2: seconds is \"ten\"",
		header + strings.Replace(row, ",0.5,", ",5,", 1):  ":2: gather outcome of d/vm",
	} {
		if _, err := parseOutcomes(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if out, err := parseOutcomes(strings.NewReader(header + row)); err != nil || len(out) != 1 || out[0].Resizes != 3 {
		t.Errorf("got %v, %v", out, err)
	}
}

// Whatever is in the file: an error, or outcomes that can be summed up each.
func FuzzParseOutcomes(f *testing.F) {
	header := strings.Join(outcomesHeader, ",") + "\n"
	for _, row := range []string{"", "d,vm,cpu,neon,1,10,1,0,1,2,0.5,0,3,0,0,0,0,0\n", "d,vm,cpu,neon,NaN,1e400,1,0,1,2,0.5,0,-3,0,0,0,0,0\n", "\"d\n"} {
		f.Add(header + row)
	}
	f.Fuzz(func(t *testing.T, text string) {
		outcomes, err := parseOutcomes(strings.NewReader(text))
		if err != nil {
			return
		}
		if len(outcomes) == 0 {
			t.Fatal("neither outcomes nor an error")
		}
		for _, o := range outcomes {
			if v, s := violation(o), slack(o); !(v >= 0 && v <= 1 && s >= 0 && s <= 1) {
				t.Fatalf("%+v: violation %v, slack %v", o, v, s)
			}
		}
	})
}
