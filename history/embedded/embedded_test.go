package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/gnomon-vm/gnomon/history"
)

func open(t *testing.T, dir string, opts Options) *DB {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	d, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func closeDB(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func point(metric string, at time.Time, v float64) history.Point {
	return history.Point{Metric: metric, At: at, Value: v}
}

func write(t *testing.T, d *DB, points ...history.Point) {
	t.Helper()
	if err := d.Client().Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
}

// scalar returns the value of a query that gives one, and whether it does.
func scalar(t *testing.T, d *DB, expr string, at time.Time) (float64, bool) {
	t.Helper()
	v, err := d.Client().Query(t.Context(), expr, at)
	if err != nil {
		t.Fatal(err)
	}
	vector := v.(model.Vector)
	if len(vector) != 1 {
		return 0, false
	}
	return float64(vector[0].Value), true
}

func wantScalar(t *testing.T, d *DB, expr string, at time.Time, want float64) {
	t.Helper()
	if got, ok := scalar(t, d, expr, at); !ok || got != want {
		t.Errorf("%s = %v (%v), want %v", expr, got, ok, want)
	}
}

func TestKeptAcrossRestart(t *testing.T) {
	dir, at := t.TempDir(), time.Now()
	d := open(t, dir, Options{})
	write(t, d, point("m", at, 7), point("m", at.Add(-time.Minute), 6))
	closeDB(t, d)
	d = open(t, dir, Options{})
	wantScalar(t, d, "sum_over_time(m[5m])", at, 13)
}

func TestRetentionChangesAtRunTime(t *testing.T) {
	d := open(t, t.TempDir(), Options{reload: tsdb.MinBlockReloadInterval, sweep: 20 * time.Millisecond})
	end := time.Now()
	var points []history.Point
	for age := 30 * time.Hour; age >= 0; age -= 5 * time.Minute {
		points = append(points, point("m", end.Add(-age), 1))
	}
	write(t, d, points...)
	if err := d.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks := len(d.db.Blocks())
	if blocks < 3 {
		t.Fatalf("%d blocks of 30 hours, want several", blocks)
	}
	wantScalar(t, d, "count_over_time(m[30d])", end, float64(len(points)))

	if err := d.SetRetention(history.Retention{Default: 6 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	n, _ := scalar(t, d, "count_over_time(m[30d])", end)
	if n < 72 || n > 73 {
		t.Errorf("%v values found just after the retention became 6h, want 72", n)
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for old := blocks; old > 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d blocks stay on disk though all of them is too old", old)
		}
		old = 0
		for _, b := range d.db.Blocks() {
			if b.MaxTime() <= horizon(6*time.Hour, time.Now()) {
				old++
			}
		}
	}
	if got := len(d.db.Blocks()); got >= blocks {
		t.Errorf("%d blocks on disk after the retention became 6h, were %d", got, blocks)
	}
	zero := history.Retention{Default: time.Hour, ByHost: map[string]time.Duration{"h": 0}}
	if d.Retention().Longest() != 25*6*time.Hour || d.SetRetention(history.Retention{}) == nil || d.SetRetention(zero) == nil {
		t.Error("want the retention read back, and 0 refused")
	}
}

func TestTooLateIsLeftOutAlone(t *testing.T) {
	reg := prometheus.NewRegistry()
	d := open(t, t.TempDir(), Options{Registerer: reg})
	at := time.Now()
	write(t, d, point("m", at, 1))
	write(t, d, point("m", at.Add(-5*time.Minute), 10), point("n", at.Add(time.Second), 5), point("m", at.Add(-3*time.Hour), 100))
	write(t, d, point("m", at, 3)) // an instant that has another value
	if err := d.Client().Write(t.Context(), []history.Point{point("m", at.Add(time.Hour), 3)}); !errors.Is(err, history.ErrRejected) {
		t.Errorf("error %v for a value of the future, want it refused", err)
	}
	wantScalar(t, d, "sum_over_time(m[1d])", at.Add(time.Second), 11)
	wantScalar(t, d, "n", at.Add(time.Second), 5)
	if n := testutil.ToFloat64(d.dropped); n != 2 {
		t.Errorf("%v values counted as refused, want 2", n)
	}
}

// Hosts' clocks may be minutes apart: what they write is all kept.
func TestClocksThatAreApart(t *testing.T) {
	reg := prometheus.NewRegistry()
	d := open(t, t.TempDir(), Options{Registerer: reg})
	now := time.Now()
	for i, off := range []time.Duration{0, 9 * time.Minute, -9 * time.Minute} {
		name := fmt.Sprintf("m%d", i)
		write(t, d, point(name, now.Add(off), 1))
		write(t, d, point(name, now.Add(off).Add(time.Second), 2))
		wantScalar(t, d, "sum_over_time("+name+"[1m])", now.Add(off).Add(2*time.Second), 3)
	}
	if n := testutil.ToFloat64(d.dropped); n != 0 {
		t.Errorf("%v values counted as refused, want none", n)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want ErrLocked and the directory", err)
	}
}

// TestMain lets the test program be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GNOMON_TEST_HISTORY_DIR"); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func writeUntilKilled(dir string) {
	d, err := Open(dir, Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	req, _ := http.NewRequest("GET", "http://x", nil)
	c := d.Client()
	start := time.Now()
	for i := 0; ; i++ {
		at := start.Add(time.Duration(i) * time.Millisecond)
		if err := c.Write(req.Context(), []history.Point{point("m", at, 1)}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i == 100 {
			fmt.Println("written")
		}
	}
}

func TestOpensAgainAfterKill(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "GNOMON_TEST_HISTORY_DIR="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill() }()
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "written\n" {
		t.Fatalf("the child said %q", got)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v while another process has it open, want ErrLocked", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	d := open(t, dir, Options{})
	if n, ok := scalar(t, d, "count_over_time(m[5m])", time.Now().Add(time.Minute)); !ok || n < 100 {
		t.Errorf("%v values after the kill, want at least 100", n)
	}
	write(t, d, point("after", time.Now(), 1))
}

func TestDamageIsSetAside(t *testing.T) {
	end := time.Now()
	sound := filepath.Join(t.TempDir(), "history")
	d := open(t, sound, Options{})
	var points []history.Point
	for age := 14 * time.Hour; age >= 0; age -= 10 * time.Minute {
		points = append(points, point("m", end.Add(-age), 1))
	}
	write(t, d, points...)
	must(t, d.db.Compact(t.Context()))
	closeDB(t, d)
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		says   string
		old    bool // the values in good blocks survive
	}{
		{"wiped", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, "starting an empty history", false},
		{"block without index", func(t *testing.T, dir string) { must(t, os.Remove(firstMatch(t, dir, "*/index"))) }, "set aside a damaged block", true},
		{"block cut short", func(t *testing.T, dir string) { must(t, os.Truncate(firstMatch(t, dir, "*/index"), 20)) }, "set aside a damaged block", true},
		{"garbage in the log", func(t *testing.T, dir string) {
			must(t, os.WriteFile(firstMatch(t, dir, "wal/0*"), bytes.Repeat([]byte("garbage "), 10000), 0o600))
		}, "", true},
		{"log is a file", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, "wal")))
			must(t, os.WriteFile(filepath.Join(dir, "wal"), []byte("x"), 0o600))
		}, "starting an empty one", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "history")
			must(t, os.CopyFS(dir, os.DirFS(sound)))
			c.damage(t, dir)

			var log bytes.Buffer
			d := open(t, dir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("log %q, want %q", log.String(), c.says)
			}
			n, _ := scalar(t, d, "count_over_time(m[30d])", end)
			if c.old && (n < 40 || n > float64(len(points))) {
				t.Errorf("%v of %d values left, want most", n, len(points))
			}
			write(t, d, point("after", end.Add(time.Second), 1))
			wantScalar(t, d, "after", end.Add(time.Second), 1)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func firstMatch(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("nothing matches %s: %v", pattern, err)
	}
	return found[0]
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"))
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	d := open(t, filepath.Join(dir, "history"), Options{})
	defer d.Close()
	at := time.Now()
	write(t, d, point("m", at, 1))

	hog := filepath.Join(dir, "hog")
	f, err := os.Create(hog)
	must(t, err)
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	must(t, f.Close())

	var failure error
	for i := 0; failure == nil && i < 1000; i++ {
		var points []history.Point
		for j := range 100 {
			points = append(points, point(fmt.Sprintf("full_%d_%d", i, j), at.Add(time.Second), float64(j)))
		}
		failure = d.Client().Write(t.Context(), points)
	}
	if failure == nil || !strings.Contains(failure.Error(), "no space left on device") || errors.Is(failure, history.ErrRejected) {
		t.Errorf("error %v, want one that tells of the full disk and invites a retry", failure)
	}
	wantScalar(t, d, "m", at, 1)

	must(t, os.Remove(hog))
	write(t, d, point("after", at.Add(2*time.Second), 1))
	wantScalar(t, d, "after", at.Add(2*time.Second), 1)
	closeDB(t, d)
	d = open(t, filepath.Join(dir, "history"), Options{})
	wantScalar(t, d, "after", at.Add(2*time.Second), 1)
	closeDB(t, d)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What Grafana and curl ask for, over a real connection and below a prefix.
func TestServesPrometheusAPI(t *testing.T) {
	d := open(t, t.TempDir(), Options{Version: "abc"})
	at := time.Now()
	write(t, d, history.Point{Metric: "m", Labels: []history.Label{{Name: "vm", Value: "db"}}, At: at, Value: 4})
	mux := http.NewServeMux()
	mux.Handle("/history/", http.StripPrefix("/history", d))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for _, c := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/query?query=m", 200, `"4"`},
		{"POST", "/query?query=1%2B1", 200, `"2"`},
		{"GET", fmt.Sprintf("/query_range?query=m&start=%d&end=%d&step=15", at.Unix()-60, at.Unix()+60), 200, `"matrix"`},
		{"GET", "/series?match[]=m", 200, `"vm":"db"`},
		{"GET", "/labels", 200, `"vm"`},
		{"GET", "/label/vm/values", 200, `"db"`},
		{"GET", "/label/__name__/values", 200, `"m"`},
		{"GET", "/metadata", 200, `"gnomon_vm_cpu_usage_cores":[{"type":"gauge"`},
		{"GET", "/metadata?metric=gnomon_decision", 200, `"gnomon_decision"`},
		{"GET", "/status/buildinfo", 200, `"version":"3.`},
		{"GET", "/status/tsdb", 200, `"numSeries":1`},
		{"GET", "/format_query?query=sum(m)", 200, `sum(m)`},
		{"GET", "/query?query=sum(", 400, `"bad_data"`},
		{"POST", "/write", 400, ""},
		{"GET", "/targets", 404, ""},
		{"GET", "/rules", 404, ""},
		{"POST", "/admin/tsdb/delete_series?match[]=m", 404, ""},
		{"GET", "/status/config", 404, ""},
	} {
		req, err := http.NewRequest(c.method, srv.URL+"/history/api/v1"+c.path, strings.NewReader(""))
		must(t, err)
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, err)
		res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(body), c.contains) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, res.StatusCode, body, c.status, c.contains)
		}
	}
}

func TestVersionIsThatOfTheModule(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	must(t, err)
	minor, patch, _ := strings.Cut(strings.TrimPrefix(upstreamVersion, "3."), ".")
	if want := "prometheus/prometheus v0.3" + fmt.Sprintf("%02s", minor) + "." + patch; !strings.Contains(string(mod), want) {
		t.Errorf("go.mod has not %q: bring upstreamVersion up to date", want)
	}
}

func TestTransportTurnsPanicsIntoErrors(t *testing.T) {
	rt := transport{http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })}
	req, err := http.NewRequest("GET", "http://x/y", nil)
	must(t, err)
	if _, err := rt.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error %v, want the panic's", err)
	}
}
