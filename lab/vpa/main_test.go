package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

const gib = 1 << 30

// use is what a VM would take at second t of a series: cores, bytes, and
// whether it is killed there.
type use func(t float64) (cpu, mem float64, oom bool)

func constant(float64) (float64, float64, bool) { return 0.5, gib, false }

// stepUp doubles CPU and memory after n steps.
func stepUp(step, n float64) use {
	return func(t float64) (float64, float64, bool) {
		if t < n*step {
			return 0.5, gib, false
		}
		return 1, 2 * gib, false
	}
}

// killedAt is a constant series with one kill.
func killedAt(second float64) use {
	return func(t float64) (float64, float64, bool) { return 0.5, gib, t == second }
}

// play runs a VM of 2 cores and 4 GiB in a closed loop: what is to be applied
// is its request from the next step on. It returns the answers.
func play(t *testing.T, u use, step float64, n int, args ...string) []answer {
	t.Helper()
	s, err := parseFlags(append(args, fmt.Sprintf("--step=%gs", step)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	a, cpu, mem := newAutoscaler(s), 2.0, 4.0*gib
	var out []answer
	for i := range n {
		at := float64(i) * step
		c, m, oom := u(at)
		req, err := decode([]byte(requestLine(t, "", at, c, m, oom, cpu, mem)))
		if err != nil {
			t.Fatal(err)
		}
		ans, err := a.step(req)
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, ans); ans.Apply {
			cpu, mem = ans.CPU, ans.Mem
		}
	}
	return out
}

func requestLine(t *testing.T, vm string, at, cpu, mem float64, oom bool, cpuRequest, memRequest float64) string {
	t.Helper()
	line, err := json.Marshal(map[string]any{
		"vm": vm, "t": at, "cpu": cpu, "mem": mem, "oom": oom, "cpu_request": cpuRequest, "mem_request": memRequest,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		use  use
		step float64
		args []string
	}{
		{"constant", constant, 60, nil},
		{"step", stepUp(60, 360), 60, nil},
		{"oom", killedAt(300 * 60), 60, nil},
		{"step-fast", stepUp(1, 360), 1, []string{"--fast"}},
		{"step-p99", stepUp(60, 360), 60, []string{"--percentile=0.99", "--margin=0.05", "--apply=always"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			for i, a := range play(t, c.use, c.step, 2880, c.args...) {
				// All that is applied but for repetitions, and now and then one.
				if i < 2 || i%120 == 0 || (a.Apply && c.name != "step-p99") {
					fmt.Fprintf(&got, "%d ", i)
					if err := encode(&got, a); err != nil {
						t.Fatal(err)
					}
				}
			}
			path := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("answers differ from %s:\n%s", path, got.String())
			}
		})
	}
}

// serveLines runs the whole program over the lines.
func serveLines(lines string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(lines), &out, &errs)
	return code, out.String(), errs.String()
}

const good = `{"t":60,"cpu":0.5,"mem":1e9,"cpu_request":2,"mem_request":4e9}`

func TestProtocolErrors(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{``, "it is empty"},
		{`[1]`, "it is not a request"},
		{`{"t":120`, "it is not a request"},
		{`nonsense`, "it is not a request"},
		{good + good, "it goes on"},
		{strings.Replace(good, `"cpu"`, `"cpus"`, 1), `unknown field "cpus"`},
		{strings.Replace(good, `"t":60,`, ``, 1), "t is missing"},
		{strings.Replace(good, `"t":60`, `"t":null`, 1), "t is missing"},
		{strings.Replace(good, `"t":60`, `"t":"60"`, 1), "it is not a request"},
		{strings.Replace(good, `"t":60`, `"t":-1`, 1), "t is -1; want 0 to 9e9"},
		{strings.Replace(good, `"t":60`, `"t":1e10`, 1), "t is 1e+10; want 0 to 9e9"},
		{strings.Replace(good, `"t":60`, `"t":1e999`, 1), "it is not a request"},
		{strings.Replace(good, `"mem":1e9`, `"mem":NaN`, 1), "it is not a request"},
		{strings.Replace(good, `"mem":1e9`, `"mem":-1`, 1), "mem is -1; want bytes from 0"},
		{strings.Replace(good, `"cpu":0.5`, `"cpu":-0.5`, 1), "cpu is -0.5; want cores from 0"},
		{strings.Replace(good, `"cpu_request":2`, `"cpu_request":0`, 1), "cpu_request is 0; want 0.001"},
		{strings.Replace(good, `"mem_request":4e9`, `"mem_request":0`, 1), "mem_request is 0; want 1 to"},
		{good, "t is 60, not after 60"},
		{strings.Replace(good, `60`, `59.5`, 1), "t is 59.5, not after 60"},
		{`{"t":` + strings.Repeat(" ", maxLine), "it is longer than 65536 bytes"},
	} {
		code, out, errs := serveLines(good + "\n" + c.line + "\n" + good + "\n")
		if code != exitUsage || !strings.Contains(errs, "read line 2: ") || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%.80s: exit code %d, stderr %q; want %d and one line with %q", c.line, code, errs, exitUsage, c.want)
		}
		if strings.Count(out, "\n") != 1 {
			t.Errorf("%.80s: stdout %q, want the answer to the line before alone", c.line, out)
		}
	}
}

// Whatever becomes of a line on its way, it is answered or refused.
func TestSpoiltLines(t *testing.T) {
	for i := range good {
		lines := []string{good[:i]}
		for _, b := range []string{"", "-", "9", "e", `"`, "{", "}", ":", ",", "\x00", "\xff"} {
			lines = append(lines, good[:i]+b+good[i+1:])
		}
		for _, line := range lines {
			if code, out, errs := serveLines(line + "\n"); !(code == exitOK && out != "" && errs == "") && !(code == exitUsage && out == "" && errs != "") {
				t.Errorf("%q: exit code %d, stdout %q, stderr %q", line, code, out, errs)
			}
		}
	}
}

func TestFlagErrors(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--percentile=0", "--percentile is 0; want above 0 to 1"},
		{"--percentile=1.1", "--percentile is 1.1; want"},
		{"--percentile=NaN", "--percentile is NaN; want"},
		{"--margin=-0.1", "--margin is -0.1; want 0 to 10"},
		{"--margin=NaN", "--margin is NaN; want"},
		{"--apply=never", `--apply is "never"; want updater or always`},
		{"--step=0s", "--step is 0s; want 1ms or more"},
		{"--nonsense", "-nonsense"},
		{"file.csv", `argument "file.csv" is not wanted`},
	} {
		code, out, errs := serveLines(good, c.arg)
		if code != exitUsage || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %d and one line with %q", c.arg, code, out, errs, exitUsage, c.want)
		}
	}
	if code, out, errs := serveLines("", "--help"); code != exitOK || out != "" || !strings.Contains(errs, "-percentile") {
		t.Errorf("--help: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

// A last line without its end is one too, and no line at all is fine.
func TestEnds(t *testing.T) {
	for lines, want := range map[string]int{"": 0, good: 1, good + "\n": 1} {
		if code, out, errs := serveLines(lines); code != exitOK || strings.Count(out, "\n") != want || errs != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d answers", lines, code, out, errs, want)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe is broken") }
func (broken) Read([]byte) (int, error)  { return 0, errors.New("pipe is broken") }

func TestBrokenPipes(t *testing.T) {
	var errs bytes.Buffer
	if code := run(nil, strings.NewReader(good), broken{}, &errs); code != exitIO || !strings.Contains(errs.String(), "write answers: pipe is broken") {
		t.Errorf("write: exit code %d, stderr %q", code, errs.String())
	}
	errs.Reset()
	if code := run(nil, broken{}, io.Discard, &errs); code != exitIO || !strings.Contains(errs.String(), "read requests: pipe is broken") {
		t.Errorf("read: exit code %d, stderr %q", code, errs.String())
	}
}

// A caller that waits for each answer before it asks again gets it.
func TestAnswersAtOnce(t *testing.T) {
	in, requests := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(nil, in, out, io.Discard)
		out.Close()
	}()
	r := bufio.NewReader(answers)
	for i := range 3 {
		fmt.Fprintln(requests, requestLine(t, "", float64(i*60), 0.5, gib, false, 2, 4*gib))
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"cpu":0.`) {
			t.Fatalf("answer %d is %q, %v", i, line, err)
		}
	}
	requests.Close()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
