package plan

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/forecast"
)

// spread is a forecast whose quantiles 0.1, 0.5 and 0.9 are a half, one and one
// and a half times each of values.
func spread(values ...float64) forecast.Forecast {
	f := forecast.Forecast{Model: "test", Levels: []float64{0.1, 0.5, 0.9}}
	for _, v := range values {
		f.Mean = append(f.Mean, v)
		f.Quantiles = append(f.Quantiles, []float64{v / 2, v, v * 3 / 2})
	}
	return f
}

func TestDecide(t *testing.T) {
	base := Inputs{
		Resource: gnomon.CPU, Interval: time.Second, Horizon: 5 * time.Second,
		Usage: 100, Demand: 100, Allocation: 200, Ceiling: 4000, Threshold: 50, Quantile: 0.9,
	}
	s := time.Second
	tests := []struct {
		name   string
		change func(*Inputs)
		want   gnomon.Want
	}{
		{"steady", func(in *Inputs) { in.Forecast = spread(90, 90, 90, 90, 90) },
			gnomon.Want{Low: 45, Median: 90, High: 135}},
		{"rise ahead", func(in *Inputs) { in.Forecast = spread(100, 100, 400, 1000, 100) },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 1530, NeedIn: 2 * s, Lifetime: 6 * s}},
		{"rise at once", func(in *Inputs) { in.Forecast = spread(1000, 100, 100, 100, 100) },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 1530, Lifetime: 3 * s}},
		{"short already", func(in *Inputs) { in.Forecast = spread(100, 100, 400, 1000, 100); in.Demand = 300 },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 1530, Lifetime: 6 * s}},
		{"to the end", func(in *Inputs) { in.Forecast = spread(1000, 1000, 1000, 1000, 1000) },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 1530, Lifetime: 7 * s}},
		{"delta is the threshold", func(in *Inputs) { in.Forecast = spread(100, 100, 100, 100, 100) },
			gnomon.Want{Low: 50, Median: 100, High: 150}},
		{"ceiling cuts", func(in *Inputs) { in.Forecast = spread(100, 1000); in.Ceiling = 900 },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 900, NeedIn: 1 * s, Lifetime: 4 * s}},
		{"ceiling leaves nothing", func(in *Inputs) { in.Forecast = spread(100, 1000); in.Ceiling = 150 },
			gnomon.Want{Low: 500, Median: 1000, High: 1500}},
		{"no ceiling known", func(in *Inputs) { in.Forecast = spread(100, 1000); in.Ceiling = 0 },
			gnomon.Want{Low: 500, Median: 1000, High: 1500}},
		{"allocation suffices", func(in *Inputs) { in.Forecast = spread(90, 90, 1000, 90); in.Allocation = 3000 },
			gnomon.Want{Low: 500, Median: 1000, High: 1500, Level: 1530, NeedIn: 2 * s, Lifetime: 5 * s}},
		{"fraction rounds up", func(in *Inputs) { in.Forecast = spread(200.1); in.Allocation = 0; in.Usage = 0; in.Demand = 0 },
			gnomon.Want{Low: 101, Median: 201, High: 301, Level: 307, Lifetime: 3 * s}},
		{"no forecast", func(*Inputs) {}, gnomon.Want{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := base
			tt.change(&in)
			tt.want.Model = in.Forecast.Model
			if got := Decide(in); got != tt.want {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// arbitrary draws inputs with a forecast of ascending quantiles.
func arbitrary(t *rapid.T) Inputs {
	amount := rapid.Int64Range(0, 1<<62)
	small := rapid.Int64Range(0, 2000)
	of := func(name string) int64 { return rapid.OneOf(small, amount).Draw(t, name) }
	in := Inputs{
		Resource:   gnomon.Resource(rapid.IntRange(0, gnomon.NumResources-1).Draw(t, "resource")),
		Interval:   time.Duration(rapid.Int64Range(1e8, 36e11).Draw(t, "interval")),
		Usage:      of("usage"),
		Demand:     of("demand"),
		Allocation: of("allocation"),
		Ceiling:    of("ceiling"),
		Threshold:  of("threshold"),
		Quantile:   rapid.Float64Range(0.5, 0.999).Draw(t, "quantile"),
		Forecast:   forecast.Forecast{Model: "any", Levels: []float64{0.1, 0.5, 0.9}},
	}
	steps := rapid.IntRange(1, 20).Draw(t, "steps")
	in.Horizon = time.Duration(steps) * in.Interval
	value := rapid.OneOf(rapid.Float64Range(0, 3000), rapid.Float64Range(0, 1e19))
	for range steps {
		a, b, c := value.Draw(t, "low"), value.Draw(t, "rise"), value.Draw(t, "rise2")
		in.Forecast.Mean = append(in.Forecast.Mean, a)
		in.Forecast.Quantiles = append(in.Forecast.Quantiles, []float64{a, a + b, a + b + c})
	}
	return in
}

func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := arbitrary(t)
		w := Decide(in)
		if w.Low < 0 || w.Median < w.Low || w.High < w.Median && in.Quantile > 0.7 {
			t.Fatalf("quantiles out of order: %+v", w)
		}
		if w.Level == 0 {
			if w.NeedIn != 0 || w.Lifetime != 0 {
				t.Fatalf("no request, yet times: %+v", w)
			}
			if float64(w.High) > float64(in.Usage)+float64(in.Threshold) && in.Ceiling > w.High {
				t.Fatalf("%+v: worth a request and none made: %+v", in, w)
			}
			return
		}
		if w.Level > in.Ceiling {
			t.Fatalf("level %d above ceiling %d", w.Level, in.Ceiling)
		}
		if float64(w.Level) <= min(float64(in.Usage)+float64(in.Threshold), maxAmount) {
			t.Fatalf("level %d not worth asking for: usage %d, threshold %d", w.Level, in.Usage, in.Threshold)
		}
		if w.NeedIn < 0 || w.NeedIn > in.Horizon {
			t.Fatalf("needed in %v, horizon %v", w.NeedIn, in.Horizon)
		}
		if w.Lifetime < 2*in.Interval || w.Lifetime > in.Horizon+3*in.Interval || w.Lifetime <= w.NeedIn {
			t.Fatalf("lifetime %v, needed in %v, interval %v, horizon %v", w.Lifetime, w.NeedIn, in.Interval, in.Horizon)
		}
	})
}

// A forecast that is higher everywhere never asks for less.
func TestDecideIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := arbitrary(t)
		before := Decide(in)
		add := rapid.Float64Range(0, 1e6).Draw(t, "add")
		for _, step := range in.Forecast.Quantiles {
			for q := range step {
				step[q] += add
			}
		}
		if after := Decide(in); after.Level < before.Level {
			t.Fatalf("higher forecast, lower level: %+v after %+v", after, before)
		}
	})
}

func TestNearest(t *testing.T) {
	levels := []float64{0.1, 0.5, 0.9, 0.95}
	for want, index := range map[float64]int{0: 0, 0.5: 1, 0.71: 2, 0.93: 3, 0.999: 3} {
		if got := nearest(levels, want); got != index {
			t.Errorf("nearest(%v) = %d, want %d", want, got, index)
		}
	}
}

func TestAmount(t *testing.T) {
	for in, want := range map[float64]int64{-1: 0, math.NaN(): 0, 0: 0, 0.2: 1, 7: 7, 1e300: maxAmount, math.Inf(1): maxAmount} {
		if got := amount(in); got != want {
			t.Errorf("amount(%v) = %d, want %d", in, got, want)
		}
	}
}
