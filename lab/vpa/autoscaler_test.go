package main

import (
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// bucketEnd returns the end of the histogram's bucket that holds a value, by
// the recommender's documented scheme: the n-th bucket starts at
// first*(1.05^n-1)/0.05.
func bucketEnd(value, first float64) float64 {
	n := math.Floor(math.Log(value*0.05/first+1) / math.Log(1.05))
	return first * (math.Pow(1.05, n+1) - 1) / 0.05
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance {
		t.Errorf("%s is %g, want %g ± %g", what, got, want, tolerance)
	}
}

// The numbers of a constant series follow from the published formulas: every
// percentile is the same, with the margin, and the bounds open with
// 1+1/days and (1+0.001/days)^-2.
func TestConstantFollowsTheFormulas(t *testing.T) {
	for _, c := range []struct {
		args   []string
		margin float64
	}{
		{nil, 0.15},
		{[]string{"--margin=0.5"}, 0.5},
		{[]string{"--percentile=0.99"}, 0.15},
		{[]string{"--percentile=0.3", "--margin=0"}, 0},
	} {
		answers := play(t, constant, 60, 1441, c.args...)
		for _, i := range []int{60, 720, 1440} {
			a, days := answers[i], float64(i)/1440
			cpu, mem := bucketEnd(0.5, 0.01)*(1+c.margin), bucketEnd(gib, 1e7)*(1+c.margin)
			near(t, "cpu", a.CPU, cpu, 0.002)
			near(t, "mem", a.Mem, mem, 10)
			near(t, "cpu_low", a.CPULow, cpu*math.Pow(1+0.001/days, -2), 0.002)
			near(t, "cpu_high", a.CPUHigh, cpu*(1+1/days), 0.002*(1+1/days))
			near(t, "mem_low", a.MemLow, mem*math.Pow(1+0.001/days, -2), 10)
			near(t, "mem_high", a.MemHigh, mem*(1+1/days), 10*(1+1/days))
		}
	}
}

// Usage that is next to nothing still gets the recommender's floors.
func TestFloors(t *testing.T) {
	a := play(t, func(float64) (float64, float64, bool) { return 0, 0, false }, 60, 10)[9]
	near(t, "cpu", a.CPU, 0.025, 0)
	near(t, "mem", a.Mem, 250*(1<<20), 0)
}

// Of a series that spends a fifth of its time at 1 core, the 70th percentile
// does not see it and the 90th does.
func TestPercentile(t *testing.T) {
	u := func(at float64) (float64, float64, bool) {
		if int(at/60)%5 == 0 {
			return 1, gib, false
		}
		return 0.5, gib, false
	}
	for percentile, cpu := range map[string]float64{"0.7": 0.5, "0.9": 1} {
		a := play(t, u, 60, 1000, "--percentile="+percentile)[999]
		near(t, "cpu at "+percentile, a.CPU, bucketEnd(cpu, 0.01)*1.15, 0.002)
	}
}

func applied(answers []answer) []int {
	var at []int
	for i, a := range answers {
		if a.Apply {
			at = append(at, i)
		}
	}
	return at
}

// The updater leaves a pod alone that is within bounds, for half a day.
func TestUpdaterWaitsHalfADay(t *testing.T) {
	half := func(float64) (float64, float64, bool) { return 1, 2 * gib, false }
	if got := applied(play(t, half, 60, 1440)); !slices.Equal(got, []int{720}) {
		t.Errorf("applied at %v, want at minute 720 alone: the pod is 12 h old, and its requests too large", got)
	}
	if got := applied(play(t, half, 1, 1440, "--fast")); !slices.Equal(got, []int{720}) {
		t.Errorf("with --fast applied at %v, want at second 720 alone", got)
	}
	// 2 cores and 4 GiB are within 10 % of what this series is given.
	fits := func(float64) (float64, float64, bool) { return 1.68, 3.45 * gib, false }
	answers := play(t, fits, 60, 1440)
	if got := applied(answers); len(got) > 0 {
		t.Errorf("applied at %v, want never: %+v is near enough", got, answers[1439])
	}
}

// A request below the lower bound is raised at once.
func TestUpdaterHelpsTheShort(t *testing.T) {
	answers := play(t, func(float64) (float64, float64, bool) { return 1.9, 8 * gib, false }, 60, 60)
	got := applied(answers)
	if len(got) != 1 || answers[got[0]].Mem < 8*gib {
		t.Fatalf("applied at %v, want once, to more than 8 GiB", got)
	}
	for i, a := range answers[:got[0]] {
		if a.MemLow > 4*gib {
			t.Errorf("not applied at %d, though the lower bound was %g", i, a.MemLow)
		}
	}
}

// A kill soon after the start is answered at once, with 20 % above the request,
// though the lower bound is still below it.
func TestKills(t *testing.T) {
	quick := play(t, killedAt(300), 60, 60)
	if got := applied(quick); len(got) == 0 || got[0] != 5 {
		t.Errorf("applied at %v, want first at the kill of minute 5", got)
	}
	if quick[5].MemLow > 4*gib {
		t.Errorf("lower bound is %g: nothing is shown", quick[5].MemLow)
	}
	near(t, "mem", quick[5].Mem, bucketEnd(1.2*4*gib, 1e7)*1.15, 10)
}

// With --apply always every loop applies.
func TestApplyAlways(t *testing.T) {
	if got := applied(play(t, constant, 60, 100, "--apply=always")); len(got) != 100 {
		t.Errorf("applied %d times of 100", len(got))
	}
}

// --fast is the same autoscaler, sixty times as fast.
func TestFastIsOnlyFaster(t *testing.T) {
	slow := play(t, stepUp(60, 500), 60, 4000)
	fast := play(t, stepUp(1, 500), 1, 4000, "--fast")
	for i := range slow {
		// The decay's rounding to the histograms' reference may differ in the last digit.
		for _, p := range [][2]float64{{slow[i].CPU, fast[i].CPU}, {slow[i].Mem, fast[i].Mem}, {slow[i].CPULow, fast[i].CPULow}, {slow[i].MemHigh, fast[i].MemHigh}} {
			if math.Abs(p[0]-p[1]) > 1e-3*p[0]+0.001 {
				t.Fatalf("at step %d: %+v, with --fast %+v", i, slow[i], fast[i])
			}
		}
		if slow[i].Apply != fast[i].Apply {
			t.Fatalf("at step %d: apply is %t, with --fast %t", i, slow[i].Apply, fast[i].Apply)
		}
	}
}

// Steps shorter than the loop are averaged over it, and nothing changes between
// two loops.
func TestShortStepsAreAveraged(t *testing.T) {
	u := func(at float64) (float64, float64, bool) {
		if int(at)%2 == 0 {
			return 0.2, gib, false
		}
		return 0.8, gib, false
	}
	answers := play(t, u, 1, 3600, "--apply=always")
	near(t, "cpu", answers[3599].CPU, bucketEnd(0.5, 0.01)*1.15, 0.002)
	got := applied(answers)
	if len(got) != 60 {
		t.Fatalf("%d loops in an hour, want 60", len(got))
	}
	for i := 1; i < len(answers); i++ {
		a, b := answers[i-1], answers[i]
		a.Apply = b.Apply
		if !b.Apply && a != b {
			t.Fatalf("at second %d, between loops, %+v became %+v", i, a, b)
		}
	}
}

// Steps longer than a minute are trusted as much as the minutes in them.
func TestLongStepsAreTrusted(t *testing.T) {
	minutes, fives := play(t, constant, 60, 1441), play(t, constant, 300, 289)
	for _, i := range []int{60, 144, 288} {
		a, b := minutes[i*5], fives[i]
		near(t, "cpu_high", b.CPUHigh, a.CPUHigh, 0.03*a.CPUHigh)
		near(t, "cpu_low", b.CPULow, a.CPULow, 0.002)
		near(t, "mem", b.Mem, a.Mem, 0)
	}
}

// VMs of one process do not know of each other, whatever their names.
func TestGuestsAreApart(t *testing.T) {
	series := map[string]use{"": constant, "a": stepUp(60, 20), "a,vm=b": killedAt(600), "b": killedAt(1200)}
	alone := map[string][]answer{}
	for name, u := range series {
		alone[name] = play(t, u, 60, 60, "--apply=always")
	}
	s, err := parseFlags([]string{"--apply=always"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	a, given := newAutoscaler(s), map[string]answer{}
	for i := range 60 {
		for name, u := range series {
			cpu, mem := 2.0, 4.0*gib
			if i > 0 {
				cpu, mem = given[name].CPU, given[name].Mem
			}
			c, m, oom := u(float64(i * 60))
			req, err := decode([]byte(requestLine(t, name, float64(i*60), c, m, oom, cpu, mem)))
			if err != nil {
				t.Fatal(err)
			}
			if given[name], err = a.step(req); err != nil {
				t.Fatal(err)
			}
			want := alone[name][i]
			if want.VM = name; given[name] != want {
				t.Fatalf("step %d of %q: %+v, alone %+v", i, name, given[name], want)
			}
		}
	}
}

func BenchmarkServe(b *testing.B) {
	var lines strings.Builder
	for i := range b.N {
		lines.WriteString(strings.Replace(good, `"t":60`, `"t":`+strconv.Itoa(60*i), 1) + "\n")
	}
	b.ResetTimer()
	if code := run(nil, strings.NewReader(lines.String()), io.Discard, io.Discard); code != exitOK {
		b.Fatalf("exit code %d", code)
	}
}
