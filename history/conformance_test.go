package history_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

// Every engine must pass this suite, embedded or not.
func TestEngines(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			c := engine.start(t)
			for _, test := range []struct {
				name string
				run  func(*testing.T, *history.Client)
			}{
				{"sample", testSample},
				{"forecast and decision", testForecastAndDecision},
				{"demand", testDemand},
				{"means", testMeans},
				{"late and twice", testLateAndTwice},
				{"one bad point", testOneBadPoint},
				{"long range", testLongRange},
				{"bad expression", testBadExpression},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, c) })
			}
		})
	}
}

// now is a whole minute a little back, so that steps meet the samples.
func now() time.Time { return time.Now().Truncate(time.Minute) }

func write(t *testing.T, c *history.Client, points ...history.Point) {
	t.Helper()
	if err := c.Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
}

// wantVector waits until a query gives these values, keyed by the labels named.
func wantVector(t *testing.T, c *history.Client, expr string, at time.Time, key string, want map[string]float64) {
	t.Helper()
	var got map[string]float64
	defer func() {
		if t.Failed() {
			t.Logf("%s = %v, want %v", expr, got, want)
		}
	}()
	eventually(t, expr+" is as wanted", func() bool {
		v, err := c.Query(t.Context(), expr, at)
		if err != nil {
			t.Fatal(err)
		}
		got = map[string]float64{}
		for _, s := range v.(model.Vector) {
			got[string(s.Metric[model.LabelName(key)])] = float64(s.Value)
		}
		if len(got) != len(want) {
			return false
		}
		for k, w := range want {
			if g, ok := got[k]; !ok || g != w {
				return false
			}
		}
		return true
	})
}

func testSample(t *testing.T, c *history.Client) {
	at := now()
	vm := history.VM{Host: "h1", Name: "db", ID: "id-sample", Account: "acme"}
	write(t, c, history.FromSample(vm, gnomon.Sample{
		At:         at,
		Known:      gnomon.SetOf(gnomon.CPU, gnomon.Memory),
		Usage:      gnomon.Resources{1500, 2 << 30, 7, 7},
		Demand:     gnomon.Resources{1750, 3 << 30, 7, 7},
		Allocation: gnomon.Resources{2000, gnomon.Unlimited},
		Starved:    [gnomon.NumResources]time.Duration{250 * time.Millisecond},
	}, gnomon.Resources{500, 1 << 30})...)
	wantVector(t, c, `{vm_id="id-sample",host="h1",vm="db",account="acme"}`, at, "__name__", map[string]float64{
		"gnomon_vm_cpu_usage_cores":          1.5,
		"gnomon_vm_cpu_demand_cores":         1.75,
		"gnomon_vm_cpu_allocation_cores":     2,
		"gnomon_vm_cpu_reservation_cores":    0.5,
		"gnomon_vm_cpu_starved_seconds":      0.25,
		"gnomon_vm_memory_usage_bytes":       2 << 30,
		"gnomon_vm_memory_demand_bytes":      3 << 30,
		"gnomon_vm_memory_reservation_bytes": 1 << 30,
		"gnomon_vm_memory_starved_seconds":   0,
	})
}

func testForecastAndDecision(t *testing.T, c *history.Client) {
	at := now()
	vm := history.VM{Host: "h1", Name: "db", ID: "id-forecast"}
	write(t, c, history.FromWant(vm, at, gnomon.Want{Resource: gnomon.Disk, Low: 1e6, Median: 2e6, High: 5e6, Level: 6e6})...)
	// Three of the same kind at one instant: none may hide another.
	for _, amount := range []int64{1000, 2000, 3000} {
		write(t, c, history.FromDecision(vm, gnomon.Decision{At: at.Add(time.Duration(amount) * time.Millisecond), Resource: gnomon.CPU, Kind: gnomon.DecideGrow, Amount: amount}))
	}
	same := gnomon.Decision{At: at, Resource: gnomon.Memory, Kind: gnomon.DecideExpire, Amount: 1 << 20}
	write(t, c, history.FromDecision(vm, same), history.FromDecision(vm, same), history.FromDecision(vm, same))
	wantVector(t, c, `gnomon_vm_disk_forecast_bytes_per_second{vm_id="id-forecast"}`, at, "quantile",
		map[string]float64{"low": 1e6, "median": 2e6, "high": 5e6})
	wantVector(t, c, `gnomon_vm_disk_request_bytes_per_second{vm_id="id-forecast"}`, at, "vm", map[string]float64{"db": 6e6})
	wantVector(t, c, `sum by (resource) (sum_over_time(gnomon_decision{vm_id="id-forecast",kind=~"grow|expire"}[1m]))`, at.Add(30*time.Second), "resource",
		map[string]float64{"cpu": 6, "memory": 3 << 20})
}

func testDemand(t *testing.T, c *history.Client) {
	end := now()
	vm := history.VM{Name: "db", ID: "id-demand"}
	var points []history.Point
	for i := range 60 {
		at := end.Add(time.Duration(i-59) * time.Second)
		if i >= 20 && i < 30 {
			continue
		}
		vm.Host = "h1"
		if i >= 40 { // migrated
			vm.Host = "h2"
		}
		jitter := time.Duration(i%3-1) * 40 * time.Millisecond
		points = append(points, history.FromSample(vm, gnomon.Sample{
			At: at.Add(jitter), Known: gnomon.SetOf(gnomon.CPU), Demand: gnomon.Resources{int64(100 + i)},
		}, gnomon.Resources{})...)
	}
	write(t, c, points...)
	var values []float64
	var start time.Time
	eventually(t, "all is found", func() bool {
		var err error
		values, start, err = history.DemandOf(t.Context(), c, vm.ID, gnomon.CPU, end, time.Minute, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return !math.IsNaN(values[58])
	})
	if want := end.Add(-59 * time.Second); !start.Equal(want) || len(values) != 60 {
		t.Fatalf("%d values from %v, want 60 from %v", len(values), start, want)
	}
	for i, v := range values {
		switch {
		case i > 20 && i < 29:
			if !math.IsNaN(v) {
				t.Errorf("values[%d] = %v, want NaN in the gap", i, v)
			}
		case i < 19 || i > 31:
			// With jitter a step holds its own sample or its neighbour's.
			if !(math.Abs(v-float64(100+i)) <= 1) {
				t.Errorf("values[%d] = %v, want about %d", i, v, 100+i)
			}
		}
	}
}

// Long steps are read from means, and from the values where there are none yet.
func testMeans(t *testing.T, c *history.Client) {
	level := history.Levels[0]
	end := time.Now().Truncate(level.Span)
	vm := history.VM{Host: "h1", Name: "db", ID: "id-means"}
	metric := history.Metric(gnomon.CPU, history.Demand)
	labels := []history.Label{{Name: "host", Value: "h1"}, {Name: "vm", Value: "db"}, {Name: "vm_id", Value: "id-means"}}
	write(t, c, history.Point{Metric: level.Mean(metric), Labels: labels, At: end.Add(-level.Span), Value: 3})
	for i := range 5 {
		write(t, c, history.FromSample(vm, gnomon.Sample{
			At: end.Add(time.Duration(i-4) * time.Minute), Known: gnomon.SetOf(gnomon.CPU), Demand: gnomon.Resources{int64(1000 * i)},
		}, gnomon.Resources{})...)
	}
	var values []float64
	defer func() { t.Logf("read %v", values) }()
	eventually(t, "both are found", func() bool {
		var err error
		values, _, err = history.DemandOf(t.Context(), c, vm.ID, gnomon.CPU, end, 2*level.Span, level.Span)
		if err != nil {
			t.Fatal(err)
		}
		return len(values) == 2 && values[0] == 3000 && values[1] == 2000
	})
}

func testLateAndTwice(t *testing.T, c *history.Client) {
	at := now()
	point := func(age time.Duration, v float64) history.Point {
		return history.Point{Metric: "test_late", Labels: []history.Label{{Name: "vm_id", Value: "late"}}, At: at.Add(-age), Value: v}
	}
	write(t, c, point(0, 1))
	write(t, c, point(0, 1))
	write(t, c, point(3*time.Minute, 10), point(2*time.Minute, 100))
	write(t, c, point(3*time.Minute, 10), point(2*time.Minute, 100))
	wantVector(t, c, `sum_over_time(test_late[10m])`, at, "vm_id", map[string]float64{"late": 111})
}

func testOneBadPoint(t *testing.T, c *history.Client) {
	at := now()
	w := history.NewWriter(c, history.WriterOptions{Batch: 100})
	for i := range 20 {
		p := history.Point{Metric: "test_bad", Labels: []history.Label{{Name: "n", Value: fmt.Sprint(i)}}, At: at, Value: float64(i)}
		if i == 7 {
			p.At = at.Add(-20 * 24 * time.Hour)
		}
		w.Write(p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for i := range 20 {
		if i != 7 {
			want[fmt.Sprint(i)] = float64(i)
		}
	}
	wantVector(t, c, `test_bad`, at, "n", want)
}

func testLongRange(t *testing.T, c *history.Client) {
	end := now()
	start := end.Add(-24999 * 100 * time.Millisecond)
	write(t, c, history.Point{Metric: "test_long", At: start, Value: 1}, history.Point{Metric: "test_long", At: end, Value: 2})
	n, sum := 0, 0.0
	defer func() { t.Logf("%d values, sum %v", n, sum) }()
	eventually(t, "both ends are found", func() bool {
		m, err := c.Range(t.Context(), `last_over_time(test_long[50ms]) or vector(0)`, start, end, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		n, sum = 0, 0
		for _, s := range m {
			for _, v := range s.Values {
				sum += float64(v.Value)
				n++
			}
		}
		return n >= 25000 && sum == 3
	})
}

func testBadExpression(t *testing.T, c *history.Client) {
	if _, err := c.Query(t.Context(), `sum(`, now()); err == nil {
		t.Error("no error for a broken expression")
	}
}
