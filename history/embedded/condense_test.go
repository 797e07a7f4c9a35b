package embedded

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

// demandAt is what a VM demands in a test, a multiple of what floats hold exactly.
func demandAt(at time.Time) float64 { return float64(at.Unix()/60%97) / 4 }

var demanded = history.Metric(gnomon.CPU, history.Demand)

// writeDemand writes a value a minute, each on the half minute.
func writeDemand(t *testing.T, d *DB, from, to time.Time) {
	t.Helper()
	var points []history.Point
	for at := from.Truncate(time.Minute).Add(30 * time.Second); at.Before(to); at = at.Add(time.Minute) {
		points = append(points, history.Point{Metric: demanded, Labels: []history.Label{{Name: "vm_id", Value: "a"}}, At: at, Value: demandAt(at)})
	}
	write(t, d, points...)
}

// condensed returns all values of a metric.
func condensed(t *testing.T, d *DB, metric string, now time.Time) map[time.Time]float64 {
	t.Helper()
	v, err := d.Client().Query(t.Context(), metric+"[60d]", now)
	must(t, err)
	found := map[time.Time]float64{}
	for _, s := range v.(model.Matrix) {
		for _, p := range s.Values {
			found[p.Timestamp.Time()] = float64(p.Value)
		}
	}
	return found
}

func TestCondenses(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, Options{means: 24 * time.Hour})
	now := time.Now()
	begin := now.Add(-3 * 24 * time.Hour).Truncate(time.Hour)
	writeDemand(t, d, begin, now)
	check := func(d *DB, settled time.Time) {
		t.Helper()
		for _, l := range history.Levels {
			mean, largest := map[time.Time]float64{}, map[time.Time]float64{}
			for end := begin.Add(l.Span); !end.After(settled); end = end.Add(l.Span) {
				sum, most, n := 0.0, 0.0, 0
				for at := end.Add(-l.Span + 30*time.Second); at.Before(end); at = at.Add(time.Minute) {
					sum, most, n = sum+demandAt(at), max(most, demandAt(at)), n+1
				}
				mean[end], largest[end] = sum/float64(n), most
			}
			got := condensed(t, d, l.Mean(demanded), now)
			if len(got) != len(mean) {
				t.Errorf("%s: %d means, want %d", l.Name, len(got), len(mean))
			}
			for at, v := range got {
				if diff := v - mean[at]; diff > 1e-9 || diff < -1e-9 {
					t.Fatalf("%s: the mean until %v is %v, want %v", l.Name, at, v, mean[at])
				}
			}
			if got := condensed(t, d, l.Max(demanded), now); !maps.Equal(got, largest) {
				t.Errorf("%s: %d maxima, want %d, or others", l.Name, len(got), len(largest))
			}
		}
	}
	c, err := d.newCondenser()
	must(t, err)

	// What was settled two days ago, then the rest, as after a stop.
	then := now.Add(-2 * 24 * time.Hour)
	must(t, c.condense(t.Context(), then))
	check(d, then.Add(-lateness))
	closeDB(t, d)
	d = open(t, dir, Options{means: 24 * time.Hour})
	c, err = d.newCondenser()
	must(t, err)
	must(t, c.condense(t.Context(), now))
	check(d, now.Add(-lateness))

	// Once more from the beginning, as if it had not been noted.
	must(t, os.Remove(filepath.Join(dir, progressFile)))
	c, err = d.newCondenser()
	must(t, err)
	must(t, c.condense(t.Context(), now))
	check(d, now.Add(-lateness))
	must(t, d.db.Compact(t.Context()))
	check(d, now.Add(-lateness))
}

// Means outlive the values they are of, each level for its own multiple, and long
// steps are read from them.
func TestMeansOutliveTheirValues(t *testing.T) {
	d := open(t, t.TempDir(), Options{means: 24 * time.Hour})
	now := time.Now()
	begin := now.Add(-60 * time.Hour).Truncate(time.Hour)
	writeDemand(t, d, begin, now)
	c, err := d.newCondenser()
	must(t, err)
	must(t, c.condense(t.Context(), now))
	must(t, d.SetRetention(history.Retention{Default: 4 * time.Hour}))
	for metric, keep := range map[string]time.Duration{
		demanded:                         4 * time.Hour,
		history.Levels[0].Mean(demanded): 24 * time.Hour,
		history.Levels[1].Mean(demanded): 60 * time.Hour,
		history.Levels[1].Max(demanded):  60 * time.Hour,
	} {
		for at := range condensed(t, d, metric, now) {
			if now.Sub(at) > keep {
				t.Errorf("%s has a value of %v ago, want the last %v", metric, now.Sub(at), keep)
			}
		}
	}
	for _, step := range []time.Duration{5 * time.Minute, time.Hour, 2 * time.Hour} {
		values, start, err := history.DemandOf(t.Context(), d.Client(), "a", gnomon.CPU, now, 48*time.Hour, step)
		must(t, err)
		kept := now.Add(-60 * time.Hour)
		if step < time.Hour {
			kept = now.Add(-24 * time.Hour)
		}
		missing := 0
		for i, v := range values {
			if at := start.Add(time.Duration(i) * step); v != v && at.After(kept.Add(step)) {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("steps of %v: %d of %d are missing", step, missing, len(values))
		}
	}
}
