package main

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon/trace"
)

// writeTree writes files below a folder of the test.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rowsOf returns a trace in which every value is 1.
func rowsOf(rows int, metrics ...string) string {
	text := "timestamp_s," + strings.Join(metrics, ",") + "\n"
	for i := range rows {
		text += strconv.Itoa(i) + strings.Repeat(",1", len(metrics)) + "\n"
	}
	return text
}

func TestReadInputs(t *testing.T) {
	text := rowsOf(20, "cpu_pct", "mem_used_bytes", "net_rx_bytes_s", "load1")
	dir := writeTree(t, map[string]string{
		"a/one.csv": text, "a/two.csv": text, "a/three.csv": text, "b/deep/vm.csv": text, "lone.csv": text,
		"c/shape.csv":    rowsOf(20, "load1"),
		"manifest.csv":   "file,ncpu,mem_total_bytes\na/one.csv,8.0,4096\na/two.csv,,\n",
		"a/manifest.csv": "ncpu,file\n2,three.csv\n",
	})
	var log bytes.Buffer
	inputs, err := readInputs(&labFlags{traces: dir, half: "all"}, &log)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range inputs {
		got = append(got, in.Dataset+"/"+in.Trace.Name)
	}
	if want := filepath.Base(dir) + "/lone a/one a/three a/two b/deep/vm"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if in := inputs[1]; in.Cores != 8 || in.Memory != 4096 || len(in.Trace.Columns) != 4 {
		t.Errorf("got %+v, want the manifest's capacities", in)
	}
	if inputs[2].Cores != 2 || inputs[3].Cores != 0 || !strings.Contains(log.String(), "1 of 6 traces are left out, such as "+filepath.Join(dir, "c/shape.csv")) {
		t.Errorf("got %+v; %s", inputs[2:4], log.String())
	}
	for _, c := range []struct {
		flags labFlags
		want  string
	}{
		{labFlags{datasets: []string{"a"}, vms: 2, half: "all"}, "one three"},
		{labFlags{datasets: []string{"a"}, half: "choose"}, "one two"},
		{labFlags{datasets: []string{"a"}, half: "report"}, "three"},
		{labFlags{datasets: []string{"b/deep", "a"}, half: "all", vms: 1}, "one vm"},
	} {
		c.flags.traces, c.flags.resources = dir, []string{"network"}
		inputs, err := readInputs(&c.flags, &log)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, in := range inputs {
			names = append(names, in.Trace.Name)
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%+v: got %v, want %s", c.flags, names, c.want)
		}
	}
}

func TestReadInputsRefuses(t *testing.T) {
	good := rowsOf(20, "cpu_pct")
	for name, c := range map[string]struct {
		files map[string]string
		flags labFlags
		want  string
	}{
		"nothing":           {nil, labFlags{}, "none there"},
		"an empty file":     {map[string]string{"a/x.csv": ""}, labFlags{}, "x.csv: empty file"},
		"text":              {map[string]string{"a/x.csv": "timestamp_s,cpu_pct\n0,1\n1,x\n"}, labFlags{}, "x.csv:3: cpu_pct"},
		"a data set":        {map[string]string{"a/x.csv": good}, labFlags{datasets: []string{"b"}}, `no data set "b"`},
		"no such metric":    {map[string]string{"a/x.csv": good}, labFlags{resources: []string{"disk"}}, "a/x.csv: nothing to play: no column tells"},
		"only zeros":        {map[string]string{"a/x.csv": strings.ReplaceAll(good, ",1", ",0")}, labFlags{}, "a/x.csv: nothing to play: every value"},
		"too few rows":      {map[string]string{"a/x.csv": rowsOf(19, "cpu_pct")}, labFlags{}, "a/x.csv: 19 rows: want at least 20"},
		"the other half":    {map[string]string{"a/x.csv": good}, labFlags{half: "report"}, "one VM only"},
		"twice":             {map[string]string{"a/x.csv": good, "a/x.csv.gz": good}, labFlags{}, "are of the same VM"},
		"a manifest's size": {map[string]string{"a/x.csv": good, "manifest.csv": "file,ncpu\na/x.csv,many\n"}, labFlags{}, `manifest.csv:2: ncpu is "many"`},
		"a manifest's name": {map[string]string{"a/x.csv": good, "a/manifest.csv": "path\nx.csv\n"}, labFlags{}, "manifest.csv:1: no column called file"},
		"an empty manifest": {map[string]string{"a/x.csv": good, "a/manifest.csv": ""}, labFlags{}, "manifest.csv: empty file"},
	} {
		c.flags.traces = writeTree(t, c.files)
		if c.flags.half == "" {
			c.flags.half = "all"
		}
		if _, err := readInputs(&c.flags, &bytes.Buffer{}); exitCode(err) != exitUsage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := readInputs(&labFlags{traces: filepath.Join(t.TempDir(), "none")}, &bytes.Buffer{}); exitCode(err) != exitNotFound {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// The traces that come with gnomon are whole, and the laboratory plays them.
func TestRecordedTraces(t *testing.T) {
	const dir = "../../traces"
	inputs, err := readInputs(&labFlags{traces: dir, half: "all"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if len(inputs) != 4 {
		t.Errorf("%d traces, want the database's, the web server's, the build's and the cache's", len(inputs))
	}
	for _, in := range inputs {
		for _, resource := range resourceNames() {
			if err := in.Check([]string{resource}); err != nil {
				t.Errorf("%s: %s: %v", in.Trace.Name, resource, err)
			}
		}
		if last := in.Trace.Times[len(in.Trace.Times)-1]; last < 590 || math.Abs(in.Trace.Interval()-1) > 0.1 || in.Cores != 1 || in.Memory != 512<<20 {
			t.Errorf("%s: %v s at %v s on %v cores, %v bytes, want ten minutes at 1 s on 1 core, 512 MiB",
				in.Trace.Name, last, in.Trace.Interval(), in.Cores, in.Memory)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	text, err := execute(t, labCommand(), "run", "--traces", dir, "--out", out,
		"--policies", "gnomon,control-static", "--knob", "gnomon=0.9", "--knob", "control-static=0.2")
	if err != nil || !strings.Contains(text, "debian-1s") {
		t.Errorf("got %v: %s", err, text)
	}
}

// Whatever the manifest: an error that names it, or sizes above 0.
func FuzzManifest(f *testing.F) {
	for _, text := range []string{"", "file\n", "file,ncpu\na.csv,2\n", "file,mem_total_bytes,ncpu\n../x,1e9,\n", "ncpu\n1\n", "file,ncpu\na,-1\n", "file,ncpu\n\"a\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sizes := map[string]size{}
		if err := parseManifest(strings.NewReader(text), "dir", "dir/manifest.csv", sizes); err != nil && !strings.Contains(err.Error(), "dir/manifest.csv") {
			t.Fatalf("which file? %v", err)
		}
		for path, s := range sizes {
			if s.cores < 0 || s.memory < 0 || math.IsNaN(s.cores+s.memory) || math.IsInf(s.cores+s.memory, 0) {
				t.Fatalf("%s has %+v", path, s)
			}
		}
	})
}

func TestLabRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	dir := writeTree(t, map[string]string{"a/x.csv": rowsOf(20, "cpu_pct")})
	for want, args := range map[string][]string{
		"--traces is missing":                {"run", "--out", out},
		"--out is missing":                   {"run", "--traces", dir},
		`unknown policy "neo": want`:         {"run", "--traces", dir, "--out", out, "--policies", "neo"},
		"build that with":                    {"run", "--traces", dir, "--out", out, "--vpa", "", "--policies", "vpa"},
		`unknown policy "n": want`:           {"run", "--traces", dir, "--out", out, "--knob", "n=1"},
		"is not among --policies":            {"run", "--traces", dir, "--out", out, "--policies", "gnomon", "--knob", "oracle=1"},
		`setting "x": want a number`:         {"run", "--traces", dir, "--out", out, "--knob", "oracle=1,x"},
		"stands twice":                       {"run", "--traces", dir, "--out", out, "--knob", "oracle=1,1.0"},
		"want a policy and":                  {"run", "--traces", dir, "--out", out, "--knob", "oracle"},
		`unknown resource "gpu"`:             {"run", "--traces", dir, "--out", out, "--resources", "gpu"},
		"--half":                             {"run", "--traces", dir, "--out", out, "--half", "third"},
		"--vms -1":                           {"run", "--traces", dir, "--out", out, "--vms", "-1"},
		`--output "xml"`:                     {"run", "--traces", dir, "--out", out, "-o", "xml"},
		"it holds x.csv too":                 {"run", "--traces", dir, "--out", filepath.Join(dir, "a")},
		"want BEFORE AFTER, got 1 argument;": {"compare", "a"},
		`argument "a" is not wanted`:         {"run", "a"},
		"read outcomes":                      {"compare", dir, dir},
		`--output "yaml": want table`:        {"policies", "--format", "yaml"},
	} {
		if _, err := execute(t, labCommand(), args...); exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused run left something")
	}
}

// A policy that another program plays is spoken to by its pipes.
func TestProgramAnswers(t *testing.T) {
	p, err := startProgram("/bin/cat")
	if err != nil {
		t.Skipf("no cat: %v", err)
	}
	if _, err := p.Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(p, answer); err != nil || string(answer) != "line\n" {
		t.Errorf("got %q, %v", answer, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if p, err = startProgram("/bin/false"); err == nil {
		if err := p.Close(); err == nil {
			t.Error("a program that failed is no error")
		}
	}
	if _, err := startProgram(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a program that is not there started")
	}
}

// TestLabRun plays two rules of thumb on two machines, whole: what is printed,
// what is written, and that it comes out the same again.
func TestLabRun(t *testing.T) {
	var text strings.Builder
	if err := trace.Write(&text, sawtooth()); err != nil {
		t.Fatal(err)
	}
	dir := writeTree(t, map[string]string{"a/x.csv": text.String(), "a/y.csv": text.String()})
	outs := []string{filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "out")}
	var printed []string
	for _, out := range outs {
		p, err := execute(t, labCommand(), "run", "--traces", dir, "--out", out, "--policies", "control-last,oracle", "--knob", "control-last=0.1,1,3")
		if err != nil {
			t.Fatal(err)
		}
		printed = append(printed, strings.ReplaceAll(p, out, "OUT"))
	}
	if printed[0] != printed[1] || !strings.Contains(printed[0], "control-last") || !strings.Contains(printed[0], "OUT/report.html") {
		t.Errorf("printed\n%s\nand then\n%s", printed[0], printed[1])
	}
	for _, name := range []string{"results.csv", "summary.csv", "outcomes.csv.gz"} {
		a, err := os.ReadFile(filepath.Join(outs[0], name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(outs[1], name)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from run to run (%v)", name, err)
		}
	}
	page, err := os.ReadFile(filepath.Join(outs[0], "report.html"))
	if err != nil || !strings.Contains(string(page), "gnomon lab run") && !strings.Contains(string(page), "lab run --knob control-last=0.1,1,3 --out ") {
		t.Errorf("the page does not tell what made it: %v", err)
	}
	p, err := execute(t, labCommand(), "compare", outs[0], outs[1])
	if err != nil || !strings.Contains(p, "0 of ") {
		t.Errorf("a run differs from itself: %s, %v", p, err)
	}
	p, err = execute(t, labCommand(), "run", "--traces", dir, "--out", outs[0], "--policies", "control-last", "--resources", "memory", "--vms", "1", "-o", "json")
	if err != nil || !strings.HasPrefix(p, "{") || strings.Contains(p, `"resource": "cpu"`) || !strings.Contains(p, `"resource": "memory"`) {
		t.Errorf("%v: %s", err, p)
	}
}

// sawtooth is a machine whose demand climbs for a minute and falls at once.
func sawtooth() *trace.Trace {
	t := &trace.Trace{Columns: []trace.Column{{Name: "cpu_cores"}, {Name: "mem_used_bytes"}}}
	for i := range 600 {
		t.Times = append(t.Times, float64(i))
		t.Columns[0].Values = append(t.Columns[0].Values, 0.2+float64(i%60)/60)
		t.Columns[1].Values = append(t.Columns[1].Values, float64(200+i%60)*1e6)
	}
	return t
}
