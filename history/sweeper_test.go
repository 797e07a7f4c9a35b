package history_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

// writeOf writes a value of a VM's usage each five minutes, and one of another
// program's metric with the same labels.
func writeOf(t *testing.T, c *history.Client, vm string, from, to time.Time) {
	t.Helper()
	var points []history.Point
	for at := from; !at.After(to); at = at.Add(5 * time.Minute) {
		for _, metric := range []string{history.Metric(gnomon.CPU, history.Usage), "other_usage"} {
			points = append(points, history.Point{Metric: metric, Labels: []history.Label{{Name: "vm_id", Value: vm}, {Name: "host", Value: "h"}}, At: at, Value: 1})
		}
	}
	write(t, c, points...)
}

// countOf returns how many values of each VM there are.
func countOf(t *testing.T, c *history.Client, metric string, now time.Time) map[string]int {
	t.Helper()
	v, err := c.Query(t.Context(), "count_over_time("+metric+"[20d])", now)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, s := range v.(model.Vector) {
		counts[string(s.Metric["vm_id"])] = int(s.Value)
	}
	return counts
}

var usage = history.Metric(gnomon.CPU, history.Usage)

func TestSweepPrometheus(t *testing.T) {
	start, url := prometheusWith(t, t.TempDir(), "--web.enable-admin-api")
	start(t)
	c := connect(t, url, nil)
	end := now()
	for _, vm := range []string{"short", "long"} { // oldest first, for both
		writeOf(t, c, vm, end.Add(-50*time.Minute), end)
	}
	r := history.Retention{Default: 24 * time.Hour, ByVM: map[gnomon.VMID]time.Duration{"short": 22 * time.Minute}}
	if err := c.Sweep(t.Context(), r, end); err != nil {
		t.Fatal(err)
	}
	if got := countOf(t, c, usage, end); got["short"] != 5 || got["long"] != 11 {
		t.Errorf("left are %v, want the last 22 minutes of one, 5 values, and all 11 of the other", got)
	}
	if got := countOf(t, c, "other_usage", end); got["short"] != 11 || got["long"] != 11 {
		t.Errorf("of others' metrics are left %v, want all", got)
	}
}

func TestSweepVictoriaMetrics(t *testing.T) {
	start, url := victoriaMetricsIn(t, t.TempDir())
	start(t)
	c := connect(t, url, flushing{})
	end := now()
	const day = 24 * time.Hour
	writeOf(t, c, "ended", end.Add(-9*day), end.Add(-9*day+time.Hour))
	writeOf(t, c, "ended lately", end.Add(-9*day), end.Add(-9*day+time.Hour))
	writeOf(t, c, "runs", end.Add(-9*day), end.Add(-9*day+time.Hour))
	writeOf(t, c, "runs", end.Add(-time.Hour), end)
	eventually(t, "all is found", func() bool { return countOf(t, c, usage, end)["runs"] == 26 })
	r := history.Retention{Default: 3 * day, ByVM: map[gnomon.VMID]time.Duration{"ended lately": 12 * day}}
	if err := c.Sweep(t.Context(), r, end); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what ended is gone", func() bool { return countOf(t, c, usage, end)["ended"] == 0 })
	if got := countOf(t, c, usage, end); got["ended lately"] != 13 || got["runs"] != 26 {
		t.Errorf("left are %v, want what ended lately and what runs as they were", got)
	}
	if got := countOf(t, c, "other_usage", end); got["ended"] != 13 {
		t.Errorf("of others' metrics are left %v, want all", got)
	}
}

// Where nothing can be deleted, it is said what to do, and nothing is tried.
func TestSweepOfOthers(t *testing.T) {
	start, url := prometheusIn(t, t.TempDir())
	start(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status/buildinfo":
			_, _ = w.Write([]byte(`{"status":"success","data":{"application":"Other","version":"1"}}`))
		case "/metrics":
			http.NotFound(w, r)
		default:
			t.Errorf("it was asked for %s", r.URL)
		}
	}))
	defer other.Close()
	for name, c := range map[string]struct {
		client *history.Client
		says   string
	}{
		"a Prometheus without its admin API": {connect(t, url, nil), "--web.enable-admin-api"},
		"another engine":                     {connect(t, other.URL, nil), "neither Prometheus nor VictoriaMetrics"},
	} {
		err := c.client.Sweep(t.Context(), history.Retention{Default: time.Hour}, time.Now())
		if !errors.Is(err, history.ErrKeepsAll) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
