package history_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

func TestNewRefusesBadURLs(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:7070", "/history", "http://", "http://[::1"} {
		if _, err := history.New(url, nil); err == nil {
			t.Errorf("New(%q): no error", url)
		}
	}
}

func TestWriteTellsWhatARetryCanMend(t *testing.T) {
	for status, rejected := range map[int]bool{
		http.StatusBadRequest: true, http.StatusRequestEntityTooLarge: true,
		http.StatusUnauthorized: false, http.StatusNotFound: false, http.StatusTooManyRequests: false,
		http.StatusInternalServerError: false, http.StatusServiceUnavailable: false,
	} {
		c, err := history.New("http://engine", &engine{answer: always(status)})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Write(t.Context(), points(0, 3))
		if err == nil || errors.Is(err, history.ErrRejected) != rejected {
			t.Errorf("status %d: error %v, rejected should be %v", status, err, rejected)
		}
	}
}

// Whatever comes goes out once, in order of time, in requests that span little.
func TestWriteOrdersAndCuts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := &engine{answer: func(_ int, minutes []float64) int {
			if slices.Max(minutes)-slices.Min(minutes) > 30 {
				rt.Fatalf("one request spans %v", minutes)
			}
			return http.StatusNoContent
		}}
		c, err := history.New("http://engine", e)
		if err != nil {
			rt.Fatal(err)
		}
		var ps []history.Point
		var want []float64
		for i, minute := range rapid.SliceOfDistinct(rapid.IntRange(0, 2000), rapid.ID[int]).Draw(rt, "minutes") {
			ps = append(ps, history.Point{Metric: "m", At: time.UnixMilli(int64(minute) * 60_000), Value: float64(minute), Event: i%2 == 0})
			want = append(want, float64(minute))
		}
		if err := c.Write(t.Context(), ps); err != nil {
			rt.Fatal(err)
		}
		slices.Sort(want)
		if !slices.Equal(e.took, want) {
			rt.Fatalf("sent %v, want %v", e.took, want)
		}
		if e.n > len(want) {
			rt.Fatalf("%d requests for %d points", e.n, len(want))
		}
	})
}

func TestSchema(t *testing.T) {
	at := time.UnixMilli(1_000)
	vm := history.VM{Host: "h1", Name: "db", ID: "id", Account: "acme"}
	waste := history.FromDecision(vm, gnomon.Decision{At: at, Resource: gnomon.CPU, Kind: gnomon.DecideWaste, Amount: 2_500_000, Verdict: gnomon.Granted})
	if waste.Value != 2.5 {
		t.Errorf("2,500,000 millicore-milliseconds are %v core-seconds, want 2.5", waste.Value)
	}
	for _, l := range []history.Label{{Name: "kind", Value: "waste"}, {Name: "verdict", Value: "granted"}, {Name: "resource", Value: "cpu"},
		{Name: "vm", Value: "db"}, {Name: "vm_id", Value: "id"}, {Name: "host", Value: "h1"}, {Name: "account", Value: "acme"}} {
		if !slices.Contains(waste.Labels, l) {
			t.Errorf("the label %v is missing in %v", l, waste.Labels)
		}
	}
	book := history.FromLedger("h1", at, gnomon.Resources{8000}, gnomon.Resources{3000}, gnomon.Resources{1000})
	for _, p := range book {
		if p.Metric == "gnomon_host_cpu_free_cores" && p.Value != 4 {
			t.Errorf("free = %v cores, want 4", p.Value)
		}
	}
	if ps := history.FromWant(vm, at, gnomon.Want{Resource: 99}); ps != nil {
		t.Errorf("a want of an unknown resource gives %v", ps)
	}
}

// Everything that is written is described.
func TestCatalogIsComplete(t *testing.T) {
	described := map[string]bool{}
	for _, d := range history.Catalog() {
		if described[d.Metric] || d.Help == "" {
			t.Errorf("%+v: twice, or without help", d)
		}
		described[d.Metric] = true
	}
	all := gnomon.SetOf(slices.Collect(gnomon.AllResources())...)
	written := history.FromSample(history.VM{}, gnomon.Sample{Known: all}, gnomon.Resources{})
	written = append(written, history.FromLedger("", time.Time{}, gnomon.Resources{}, gnomon.Resources{}, gnomon.Resources{})...)
	for r := range gnomon.AllResources() {
		written = append(written, history.FromWant(history.VM{}, time.Time{}, gnomon.Want{Resource: r, Level: 1})...)
	}
	written = append(written, history.FromDecision(history.VM{}, gnomon.Decision{}))
	for _, p := range written {
		if !described[p.Metric] {
			t.Errorf("%s is written but not described", p.Metric)
		}
	}
	if len(described) != 4*7+4*4+1 {
		t.Errorf("%d metrics described", len(described))
	}
}
