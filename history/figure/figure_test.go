package figure_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/embedded"
	"github.com/gnomon-vm/gnomon/history/figure"
)

// fill writes five minutes of a VM that ends at end, with a gap of a minute
// after the first 100 s.
func fill(t *testing.T, c *history.Client, vm history.VM, end time.Time) {
	t.Helper()
	var points []history.Point
	for s := range 300 {
		if s >= 100 && s < 160 {
			continue
		}
		at := end.Add(time.Duration(s-299)*time.Second + time.Duration(s%7)*20*time.Millisecond)
		want := int64(1000 + 600*math.Sin(float64(s)/30))
		limit := int64(1200)
		if s > 200 {
			limit = 1800
		}
		points = append(points, history.FromSample(vm, gnomon.Sample{
			At: at, Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory),
			Usage: gnomon.Resources{min(want, limit), want << 20}, Demand: gnomon.Resources{want, want << 20},
			Allocation: gnomon.Resources{limit, gnomon.Unlimited},
		}, gnomon.Resources{int64(s/50%2) * 200})...)
		points = append(points, history.FromWant(vm, at, gnomon.Want{Resource: gnomon.CPU, Low: want * 8 / 10, Median: want, High: want * 13 / 10})...)
		if s == 50 || s == 210 {
			points = append(points, history.FromDecision(vm, gnomon.Decision{At: at, Resource: gnomon.CPU, Kind: gnomon.DecideMiss, Amount: 100}))
		}
	}
	if err := c.Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
}

func TestOf(t *testing.T) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := db.Client()
	end := time.Now().Truncate(time.Second)
	fill(t, c, history.VM{Host: "h", Name: "web-1", ID: "id-1"}, end)
	fill(t, c, history.VM{Host: "h", Name: "db", ID: "id-2"}, end)

	f, err := figure.Of(t.Context(), c, figure.Options{VMs: []string{"web-1", "id-2"}, Start: end.Add(-5 * time.Minute), End: end,
		Resources: []gnomon.Resource{gnomon.CPU, gnomon.Memory}})
	if err != nil {
		t.Fatal(err)
	}
	if f.Columns != 2 || len(f.Panels) != 4 || f.Panels[0].Title != "CPU" || f.Panels[3].Title != "Memory" {
		t.Fatalf("%d columns, panels %d; want CPU and memory of two VMs", f.Columns, len(f.Panels))
	}
	for _, i := range []int{0, 1} { // by name and by ID alike
		cpu := f.Panels[i]
		if len(cpu.Series) != 3 || len(cpu.Bands) != 2 || len(cpu.Marks) != 1 {
			t.Fatalf("CPU has %d lines, %d bands, %d marks; want 3, 2, 1", len(cpu.Series), len(cpu.Bands), len(cpu.Marks))
		}
		demand := cpu.Series[0].Points
		missing := 0
		for _, p := range demand {
			if math.IsNaN(p.Value) {
				missing++
			}
		}
		if missing < 50 || missing > 65 {
			t.Errorf("%d steps of demand are missing, want about the 60 s of the gap", missing)
		}
		if last := demand[len(demand)-1]; !last.At.Equal(end) || math.Abs(last.Value-(1+.6*math.Sin(299./30))) > 0.03 {
			t.Errorf("the last demand is %v at %v", last.Value, last.At)
		}
		if n := len(cpu.Marks[0].Times); n != 2 || cpu.Marks[0].Name != "miss" {
			t.Errorf("%d marks of %s, want 2 of miss", n, cpu.Marks[0].Name)
		}
	}
	if mem := f.Panels[2]; len(mem.Series) != 2 || len(mem.Bands) != 0 {
		t.Errorf("memory has %d lines, %d bands; want usage and demand alone", len(mem.Series), len(mem.Bands))
	}
	var png bytes.Buffer
	if err := chart.Render(&png, f, chart.PNG, 1400, 560); err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("GNOMON_CHART_DIR"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "history.png"), png.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfUnknownVM(t *testing.T) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Now()
	_, err = figure.Of(t.Context(), db.Client(), figure.Options{VMs: []string{`no"such`}, Start: now.Add(-time.Minute), End: now})
	if !errors.Is(err, figure.ErrNoHistory) {
		t.Errorf("error %v, want ErrNoHistory", err)
	}
	if _, err := figure.Of(t.Context(), db.Client(), figure.Options{VMs: []string{"x"}, Start: now, End: now}); err == nil {
		t.Error("no error for an empty time")
	}
}

// Of months ago only means and maxima are left: a plot of them is drawn from those.
func TestOfTheLastMonths(t *testing.T) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := db.Client()
	end := time.Now().Truncate(time.Hour)
	labels := []history.Label{{Name: "vm", Value: "db"}, {Name: "vm_id", Value: "id-1"}}
	hour := history.Levels[1]
	var points []history.Point
	for at := end.Add(-90 * 24 * time.Hour); !at.After(end); at = at.Add(time.Hour) {
		for _, q := range []history.Quantity{history.Usage, history.Demand} {
			points = append(points, history.Point{Metric: hour.Max(history.Metric(gnomon.CPU, q)), Labels: labels, At: at, Value: 2})
		}
	}
	if err := c.Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
	f, err := figure.Of(t.Context(), c, figure.Options{VMs: []string{"db"}, Start: end.Add(-89 * 24 * time.Hour), End: end, Resources: []gnomon.Resource{gnomon.CPU}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Panels) != 1 || len(f.Panels[0].Series) != 2 {
		t.Fatalf("panels %+v, want demand and usage", f.Panels)
	}
	for _, line := range f.Panels[0].Series {
		for _, p := range line.Points {
			if p.Value != 2 {
				t.Fatalf("%s is %v at %v, want 2 all the time", line.Name, p.Value, p.At)
			}
		}
	}
}
