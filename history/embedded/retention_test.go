package embedded

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

// owner is whose series a point is of.
type owner struct{ vm, host, account string }

func (o owner) point(at time.Time) history.Point {
	return history.Point{Metric: "m", Labels: []history.Label{{Name: "vm_id", Value: o.vm}, {Name: "host", Value: o.host}, {Name: "account", Value: o.account}}, At: at, Value: 1}
}

func (o owner) labels() labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, "m", "vm_id", o.vm, "host", o.host, "account", o.account)
}

// Several rules at once; what each owner keeps follows from the precedence.
var (
	mixed = history.Retention{
		Default:   40 * time.Hour,
		ByAccount: map[string]time.Duration{"acme": 10 * time.Hour, "long": 48 * time.Hour},
		ByHost:    map[string]time.Duration{"h2": 20 * time.Hour},
		ByVM:      map[gnomon.VMID]time.Duration{"a": 5 * time.Hour, "b": 40 * time.Hour, "x.y": 5 * time.Hour},
	}
	mixedKeeps = map[owner]time.Duration{
		{"a", "h1", "acme"}: 5 * time.Hour,
		{"a", "h2", ""}:     5 * time.Hour,
		{"b", "h2", "acme"}: 40 * time.Hour,
		{"c", "h2", "acme"}: 20 * time.Hour,
		{"c", "h1", "acme"}: 10 * time.Hour,
		{"c", "h1", "long"}: 48 * time.Hour,
		{"c", "h1", ""}:     40 * time.Hour,
		{"x.y", "h1", ""}:   5 * time.Hour,
		{"xay", "h1", ""}:   40 * time.Hour,
		{"", "h2", ""}:      20 * time.Hour,
		{"", "h1", ""}:      40 * time.Hour,
	}
)

// counts returns how many values of each owner a query finds.
func counts(t *testing.T, d *DB, at time.Time) map[owner]int {
	t.Helper()
	v, err := d.Client().Query(t.Context(), "count_over_time(m[60d])", at)
	must(t, err)
	found := map[owner]int{}
	for _, s := range v.(model.Vector) {
		found[owner{string(s.Metric["vm_id"]), string(s.Metric["host"]), string(s.Metric["account"])}] = int(s.Value)
	}
	return found
}

// stored returns the oldest value on disk of each owner, in blocks.
func stored(t *testing.T, d *DB) map[owner]int64 {
	t.Helper()
	oldest := map[owner]int64{}
	q, err := d.db.Querier(math.MinInt64, math.MaxInt64)
	must(t, err)
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "m"))
	for set.Next() {
		it := set.At().Iterator(nil)
		if it.Next() == chunkenc.ValNone {
			continue
		}
		at, _ := it.At()
		ls := set.At().Labels()
		oldest[owner{ls.Get("vm_id"), ls.Get("host"), ls.Get("account")}] = at
	}
	must(t, set.Err())
	return oldest
}

// shorterOf returns the groups that are swept.
func shorterOf(t *testing.T, d *DB, r history.Retention) []history.Group {
	t.Helper()
	must(t, d.SetRetention(r))
	return d.rules.Load().shorter
}

const testStep = 20 * time.Minute

func writeDays(t *testing.T, d *DB, end time.Time, owners []owner) {
	t.Helper()
	var points []history.Point
	for age := 50 * time.Hour; age >= 0; age -= testStep {
		for _, o := range owners {
			points = append(points, o.point(end.Add(-age)))
		}
	}
	write(t, d, points...)
	must(t, d.db.Compact(t.Context()))
	if n := len(d.db.Blocks()); n < 4 {
		t.Fatalf("%d blocks of 50 hours, want several", n)
	}
}

func TestEverySeriesHasItsRetention(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, Options{sweep: 20 * time.Millisecond})
	end := time.Now()
	owners := slices.Collect(maps.Keys(mixedKeeps))
	writeDays(t, d, end, owners)
	for o, n := range counts(t, d, end) {
		if n != 151 {
			t.Fatalf("%v: %d values before any retention is set, want 151", o, n)
		}
	}

	must(t, d.SetRetention(mixed))
	check := func(d *DB) {
		t.Helper()
		found := counts(t, d, end)
		for o, keep := range mixedKeeps {
			if n, want := found[o], int(keep/testStep); n < want || n > want+1 {
				t.Errorf("%v: %d values of %v found, want %d", o, n, keep, want)
			}
		}
	}
	check(d)
	m, err := d.Client().Range(t.Context(), `m{vm_id="a",host="h1"}`, end.Add(-50*time.Hour), end, lookback)
	must(t, err)
	if len(m) != 1 || m[0].Values[0].Timestamp.Time().Before(end.Add(-5*time.Hour)) {
		t.Errorf("a range query found %v, want the last 5 hours", m)
	}

	// On disk nothing is left beyond the retention but what shares a block with
	// what is kept, of 18 hours at most.
	wantSwept := func(d *DB) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			late := ""
			for o, at := range stored(t, d) {
				if limit := end.Add(-mixedKeeps[o] - 18*time.Hour); time.UnixMilli(at).Before(limit) {
					late = fmt.Sprintf("%v: a value of %v ago stays on disk", o, end.Sub(time.UnixMilli(at)))
				}
			}
			if late == "" && !(&sweeper{db: d.db}).marked() {
				return
			}
			select {
			case <-deadline:
				t.Fatal(late)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	wantSwept(d)
	check(d)

	closeDB(t, d)
	d = open(t, dir, Options{})
	must(t, d.SetRetention(mixed))
	check(d)
	wantSwept(d)
}

// A block is rewritten once when it is wholly beyond a period, and never again.
func TestSweepRewritesABlockOnce(t *testing.T) {
	d := open(t, t.TempDir(), Options{})
	now := time.Now()
	writeDays(t, d, now, []owner{{"a", "h", ""}, {"b", "h", ""}})
	r := history.Retention{Default: 60 * time.Hour, ByVM: map[gnomon.VMID]time.Duration{"a": time.Hour}}
	names := func() (all []string) {
		for _, b := range d.db.Blocks() {
			all = append(all, b.Meta().ULID.String())
		}
		return all
	}
	s := sweeper{db: d.db}
	before := names()
	must(t, s.sweep(t.Context(), shorterOf(t, d, r), now))
	first := names()
	if slices.Equal(before, first) || s.marked() {
		t.Fatalf("no block was rewritten: %v, then %v", before, first)
	}
	at, ok := stored(t, d)[owner{"a", "h", ""}]
	if ok && at < d.db.Blocks()[0].MaxTime() {
		t.Errorf("values of %v ago are left", now.Sub(time.UnixMilli(at)))
	}
	must(t, s.sweep(t.Context(), shorterOf(t, d, r), now.Add(2*cleanPeriod)))
	// A new sweeper, as after a restart, finds nothing to delete either.
	again := sweeper{db: d.db}
	must(t, again.sweep(t.Context(), shorterOf(t, d, r), now))
	if third := names(); !slices.Equal(first, third) {
		t.Errorf("blocks were rewritten for nothing: %v, then %v", first, third)
	}
	wantScalar(t, d, `count_over_time(m{vm_id="b"}[60d])`, now, 151)
}

func TestRewriteIsSeldom(t *testing.T) {
	d := open(t, t.TempDir(), Options{})
	now := time.Now()
	writeDays(t, d, now, []owner{{"a", "h", ""}, {"b", "h", ""}})
	r := history.Retention{Default: 60 * time.Hour, ByVM: map[gnomon.VMID]time.Duration{"a": time.Hour}}
	s := sweeper{db: d.db, cleaned: now}
	must(t, s.sweep(t.Context(), shorterOf(t, d, r), now.Add(cleanPeriod-time.Second)))
	if !s.marked() {
		t.Fatal("blocks were rewritten within the pause, or nothing was deleted")
	}
	must(t, s.sweep(t.Context(), shorterOf(t, d, r), now.Add(cleanPeriod)))
	if s.marked() {
		t.Error("blocks were not rewritten after the pause")
	}
}

// The series that the groups select are those that queries hide, whatever the
// rules: each is in the one group of its period.
func TestGroupsAgreeWithSeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"", "a", "b", "a|b", "a.b", "axb", ".*"})
		periods := rapid.Map(rapid.IntRange(1, 4), func(n int) time.Duration { return time.Duration(n) * time.Hour })
		rules := rapid.MapOf(names.Filter(func(s string) bool { return s != "" }), periods)
		r := history.Retention{Default: periods.Draw(t, "default"), ByAccount: rules.Draw(t, "accounts"), ByHost: rules.Draw(t, "hosts"), ByVM: map[gnomon.VMID]time.Duration{}}
		for id, keep := range rules.Draw(t, "vms") {
			r.ByVM[gnomon.VMID(id)] = keep
		}
		o := owner{names.Draw(t, "vm"), names.Draw(t, "host"), names.Draw(t, "account")}
		series := labels.NewBuilder(o.labels()).Set(model.MetricNameLabel,
			rapid.SampledFrom([]string{"m", "m:mean5m", "m:max5m", "m:mean1h", "m:a:max1h", "m:mean", "mean1h"}).Draw(t, "metric")).Labels()
		keep := r.Of(series)
		var in []time.Duration
		for _, g := range r.Groups() {
			if !slices.ContainsFunc(g.Matchers, func(m *labels.Matcher) bool { return !m.Matches(series.Get(m.Name)) }) {
				in = append(in, g.Keep)
			}
		}
		if !slices.Equal(in, []time.Duration{keep}) {
			t.Fatalf("%v keeps %v, and is in the groups of %v", o, keep, in)
		}
	})
}

// A database that was closed for a while, or whose server cannot reach its
// configuration yet, loses nothing.
func TestKeptUntilTold(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, Options{})
	now := time.Now()
	write(t, d, point("m", now.Add(-400*24*time.Hour), 1), point("m", now.Add(-20*24*time.Hour), 2), point("m", now, 3))
	must(t, d.db.Compact(t.Context()))
	if len(d.db.Blocks()) < 2 {
		t.Fatal("old values are in no block")
	}
	closeDB(t, d)
	d = open(t, dir, Options{})
	wantScalar(t, d, "sum_over_time(m[500d])", now, 6)
	must(t, d.SetRetention(history.Retention{Default: 30 * 24 * time.Hour}))
	wantScalar(t, d, "sum_over_time(m[500d])", now, 5)
}
