package plan

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func settings() Settings {
	return Settings{
		Interval: time.Second, Horizon: 5 * time.Second, Model: "auto", Price: 100,
		Threshold: gnomon.Resources{gnomon.CPU: 50, gnomon.Memory: 16 << 20},
	}
}

func planner(t *testing.T, s Settings) *Planner {
	t.Helper()
	p, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cpu is an event second seconds after the start, about CPU only.
func cpu(second float64, usage, demand int64) Observation {
	return Observation{
		Seq: uint64(second * 10), At: start.Add(time.Duration(second * float64(time.Second))), Known: gnomon.SetOf(gnomon.CPU),
		Usage: gnomon.Resources{usage}, Demand: gnomon.Resources{demand},
		Allocation: gnomon.Resources{200}, Ceiling: gnomon.Resources{2000},
	}
}

// burst is a load of 60, and 600 for 4 of every 12 seconds.
func burst(second int) int64 {
	if second%12 >= 8 {
		return 600
	}
	return 60
}

func TestPlannerAsksBeforeTheBurst(t *testing.T) {
	p := planner(t, settings())
	asked := 0
	for s := range 120 {
		got := p.Observe(cpu(float64(s), burst(s), burst(s)))
		if got.Seq != uint64(s*10) || !got.At.Equal(start.Add(time.Duration(s)*time.Second)) || len(got.Wants) != 1 {
			t.Fatalf("second %d: proposal %+v", s, got)
		}
		if s < 60 || s%12 != 7 {
			continue
		}
		if w := got.Wants[0]; w.Level >= 500 && w.Level <= 800 && w.NeedIn == 0 {
			asked++
		} else {
			t.Logf("second %d: %+v", s, w)
		}
	}
	if asked != 5 {
		t.Errorf("asked before %d of 5 bursts", asked)
	}
}

func TestPlannerCountsMissingEvents(t *testing.T) {
	p := planner(t, settings())
	p.Observe(cpu(0, 100, 100))
	p.Observe(cpu(1.2, 100, 100)) // late by less than half an interval
	p.Observe(cpu(1.9, 100, 100))
	p.Observe(cpu(5, 100, 100)) // two missing
	p.Observe(cpu(5, 999, 999)) // twice the same
	p.Observe(cpu(4, 999, 999)) // out of order
	u := cpu(5.9, 999, 999)
	u.Urgent = true
	p.Observe(u)
	p.Observe(cpu(6, 100, 100))
	nan := math.NaN()
	want := []float64{100, 100, 100, nan, nan, 100, 100}
	if got := p.lanes[gnomon.CPU].history; !same(got, want) {
		t.Errorf("history %v, want %v", got, want)
	}
	p.Observe(cpu(1e6, 100, 100))
	if got, want := len(p.lanes[gnomon.CPU].history), 7+maxGap+1; got != want {
		t.Errorf("a long gap made %d samples, want %d", got, want)
	}
	p.Observe(cpu(3, 70, 70)) // the clock was set back
	h := p.lanes[gnomon.CPU].history
	if h[len(h)-1] != 70 {
		t.Errorf("nothing learned after the clock was set back")
	}
}

func same(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return x == y || math.IsNaN(x) && math.IsNaN(y) })
}

func TestUrgentDemandIsTheLeastThatIsEnough(t *testing.T) {
	p := planner(t, settings())
	for s := range 30 {
		p.Observe(cpu(float64(s), 60, 60))
	}
	o := cpu(29.3, 200, 900)
	o.Urgent = true
	if got := p.Observe(o).Wants[0]; got.Enough <= 900 || got.Level >= 900 {
		t.Errorf("got %+v, want more than 900 to be enough and nothing of it reserved", got)
	}
	if h := p.lanes[gnomon.CPU].history; len(h) != 30 {
		t.Errorf("%d samples learned, want 30", len(h))
	}
}

// What is held at its limit does not tell how much more it would do: what
// is enough is as demand was when it was more than that.
func TestAtItsLimitIsSizedByWhatExceededIt(t *testing.T) {
	for _, c := range []struct {
		r      gnomon.Resource
		urgent bool
		demand int64 // as it looks at a limit of 100 kB/s
	}{
		{gnomon.Disk, true, 150_000},
		{gnomon.Network, true, 195_000},
		{gnomon.Network, false, 103_000},
	} {
		t.Run(fmt.Sprintf("%v, urgent %t", c.r, c.urgent), func(t *testing.T) {
			sample := func(at float64, usage, demand int64) Observation {
				o := cpu(at, 0, 0)
				o.Known = gnomon.SetOf(c.r)
				o.Usage[c.r], o.Demand[c.r], o.Allocation[c.r], o.Ceiling[c.r] = usage, demand, 100_000, 100_000_000
				return o
			}
			p := planner(t, settings())
			for s := range 400 {
				usage := int64(20_000)
				if s%50 == 0 {
					usage = 8_000_000
				}
				p.Observe(sample(float64(s), usage, usage))
			}
			o := sample(400, 100_000, c.demand)
			if o.Urgent = c.urgent; c.urgent {
				o.At = o.At.Add(-700 * time.Millisecond)
			}
			if got := p.Observe(o).Wants[0].Enough; got < 7_500_000 || got > 12_000_000 {
				t.Errorf("%d B/s is enough, want about the 8 MB/s of each burst", got)
			}
		})
	}
}

func TestUnknownResourcesAreMissing(t *testing.T) {
	p := planner(t, settings())
	both := cpu(0, 60, 60)
	both.Known = gnomon.SetOf(gnomon.CPU, gnomon.Memory)
	if got := p.Observe(both); len(got.Wants) != 2 {
		t.Fatalf("wants %+v, want two", got.Wants)
	}
	if got := p.Observe(cpu(1, 60, 60)); len(got.Wants) != 1 {
		t.Errorf("wants %+v, want only cpu's", got.Wants)
	}
	if h := p.lanes[gnomon.Memory].history; len(h) != 2 || !math.IsNaN(h[1]) {
		t.Errorf("memory's history %v, want one sample and one missing", h)
	}
	if p.lanes[gnomon.Disk].forecaster != nil {
		t.Error("a forecaster for a resource never seen")
	}
}

func TestConfigureKeepsHistory(t *testing.T) {
	p := planner(t, settings())
	for s := range 100 {
		p.Observe(cpu(float64(s), burst(s), burst(s)))
	}
	changed := settings()
	changed.Model, changed.Horizon = "seasonal-naive", 12*time.Second
	if err := p.Configure(changed); err != nil {
		t.Fatal(err)
	}
	w := p.Observe(cpu(100, burst(100), burst(100))).Wants[0]
	if w.Model != "seasonal-naive" || w.High < 500 {
		t.Errorf("got %+v, want the season learned before the change", w)
	}
	before := p.lanes[gnomon.CPU].forecaster
	changed.Threshold[gnomon.CPU] = 1000
	if err := p.Configure(changed); err != nil {
		t.Fatal(err)
	}
	if p.lanes[gnomon.CPU].forecaster != before {
		t.Error("a threshold made the forecaster train anew")
	}
	if w := p.Observe(cpu(101, 60, 60)).Wants[0]; w.Level != 0 {
		t.Errorf("got %+v, want no request under the new threshold", w)
	}
}

func TestConfigureRefuses(t *testing.T) {
	tests := map[string]func(*Settings){
		"interval 0s":       func(s *Settings) { s.Interval = 0 },
		"horizon 500ms":     func(s *Settings) { s.Horizon = 500 * time.Millisecond },
		"season -1s":        func(s *Settings) { s.Season = -time.Second },
		"price 0":           func(s *Settings) { s.Price = 0 },
		"price NaN":         func(s *Settings) { s.Price = math.NaN() },
		"threshold disk=-1": func(s *Settings) { s.Threshold[gnomon.Disk] = -1 },
		`model "oracle"`:    func(s *Settings) { s.Model = "oracle" },
	}
	for want, change := range tests {
		p := planner(t, settings())
		s := settings()
		change(&s)
		err := p.Configure(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if !reflect.DeepEqual(p.settings, settings()) {
			t.Errorf("%s: settings changed although refused", want)
		}
	}
	s := settings()
	s.Season = 24 * time.Hour // longer than can be held: found instead
	if _, err := New(s); err != nil {
		t.Error(err)
	}
}

func TestResample(t *testing.T) {
	nan, s := math.NaN(), time.Second
	tests := []struct {
		in            []float64
		before, after time.Duration
		want          []float64
	}{
		{[]float64{1, 2, 3, 4, 5}, s, 2 * s, []float64{2.5, 4.5}},
		{[]float64{1, 2}, 2 * s, s, []float64{1, 1, 2, 2}},
		{[]float64{nan, 2, nan, nan}, s, 2 * s, []float64{2, nan}},
		{nil, s, 2 * s, nil},
		{[]float64{1}, s, time.Hour, nil},
	}
	for _, tt := range tests {
		if got := resample(tt.in, tt.before, tt.after); !same(got, tt.want) {
			t.Errorf("%v from %v to %v: got %v, want %v", tt.in, tt.before, tt.after, got, tt.want)
		}
	}
	if got := resample(make([]float64, 1000), s, 100*time.Millisecond); len(got) != kept {
		t.Errorf("%d samples, want no more than %d", len(got), kept)
	}
}

// Whatever comes, proposals are within bounds and what is kept is bounded.
func TestPlannerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := New(settings())
		if err != nil {
			t.Fatal(err)
		}
		at := start
		value := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(math.MinInt64, math.MaxInt64))
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.Int64Range(-3e9, 2e10).Draw(t, "gap")))
			o := Observation{At: at, Urgent: rapid.Bool().Draw(t, "urgent"), Known: gnomon.ResourceSet(rapid.Uint8().Draw(t, "known"))}
			for r := range gnomon.AllResources() {
				o.Usage[r], o.Demand[r] = value.Draw(t, "usage"), value.Draw(t, "demand")
				o.Allocation[r], o.Ceiling[r] = value.Draw(t, "allocation"), value.Draw(t, "ceiling")
			}
			if rapid.IntRange(0, 20).Draw(t, "configure") == 0 {
				s := settings()
				s.Interval = time.Duration(rapid.Int64Range(1e8, 5e9).Draw(t, "interval"))
				s.Model = rapid.SampledFrom([]string{"auto", "ses", "analog", "arima"}).Draw(t, "model")
				if err := p.Configure(s); err != nil {
					t.Fatal(err)
				}
			}
			got := p.Observe(o)
			for _, w := range got.Wants {
				if !o.Known.Has(w.Resource) || w.Level > max(0, o.Ceiling[w.Resource]) || w.Low < 0 || w.Low > w.Median || w.Median > w.High {
					t.Fatalf("%+v proposed for %+v", w, o)
				}
			}
		}
		for _, l := range p.lanes {
			if len(l.history) > kept+kept/4 {
				t.Fatalf("%d demands kept", len(l.history))
			}
		}
	})
}

// The same events give the same proposals.
func TestPlannerIsDeterministic(t *testing.T) {
	a, b := planner(t, settings()), planner(t, settings())
	for s := range 200 {
		o := cpu(float64(s), burst(s)+int64(s*37%11), burst(s))
		if x, y := a.Observe(o), b.Observe(o); !reflect.DeepEqual(x, y) {
			t.Fatalf("second %d: %+v and %+v", s, x, y)
		}
	}
}

// BenchmarkObserve is what one event of four resources costs the shadow.
func BenchmarkObserve(b *testing.B) {
	p, err := New(settings())
	if err != nil {
		b.Fatal(err)
	}
	known := gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network)
	second := 0
	for b.Loop() {
		o := cpu(float64(second), burst(second), burst(second))
		o.Known = known
		for r := range gnomon.AllResources() {
			o.Usage[r], o.Demand[r], o.Allocation[r], o.Ceiling[r] = burst(second+int(r)), burst(second+int(r)), 300, 2000
		}
		p.Observe(o)
		second++
	}
}
