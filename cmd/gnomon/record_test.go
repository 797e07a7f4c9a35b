package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/embedded"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/trace"
)

// execute runs a command and returns what it wrote.
func execute(t *testing.T, cmd *cobra.Command, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// simulatedHost has VMs of two vCPUs and 1 GiB that use what is told, and a
// shadow; waiting for a time has it pass there at once.
func simulatedHost(t *testing.T) (*simulated.Driver, clock) {
	t.Helper()
	d := simulated.New(simulated.Options{})
	for _, spec := range []simulated.Spec{
		{ID: "id-db", Name: "db", VCPUs: 2, Demand: [gnomon.NumResources]simulated.Demand{
			simulated.Constant(500), simulated.Constant(400 << 20), simulated.Constant(3e6), simulated.Constant(2e6)}},
		{ID: "id-web", Name: "web-1", VCPUs: 2, NoDisk: true, Demand: [gnomon.NumResources]simulated.Demand{simulated.Constant(1500)}},
		{ID: "id-shadow", Name: "web-shadow", ShadowOf: "id-web"},
	} {
		if err := d.AddVM(spec); err != nil {
			t.Fatal(err)
		}
	}
	return d, clock{d.Now, func(wait time.Duration) <-chan time.Time {
		d.Advance(wait)
		fired := make(chan time.Time, 1)
		fired <- d.Now()
		return fired
	}}
}

func TestRecordLive(t *testing.T) {
	d, c := simulatedHost(t)
	dir := filepath.Join(t.TempDir(), "mine")
	var log bytes.Buffer
	f := &recordFlags{vms: []string{"db", "web-*"}, out: dir, interval: time.Second, duration: 10 * time.Second}
	if err := recordLive(t.Context(), d, f, &log, c); err != nil {
		t.Fatal(err)
	}
	files, err := trace.FindFiles(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v; want one of db and one of web-1, none of a shadow", files, err)
	}
	db, err := trace.ReadFile(filepath.Join(dir, "db.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if len(db.Times) != 10 || db.Interval() != 1 {
		t.Errorf("%d rows %v s apart, want 10 of 1 s", len(db.Times), db.Interval())
	}
	for name, want := range map[string]float64{"cpu_cores": 0.5, "cpu_pct": 25, "disk_bytes_s": 3e6, "net_bytes_s": 2e6} {
		if got := db.Column(name); len(got) != 10 || got[5] < want*0.99 || got[5] > want*1.01 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := db.Column("mem_used_bytes")[9]; got < 400<<20 || got > 480<<20 {
		t.Errorf("memory in use is %v, want 400 MiB and what the kernel keeps", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "web-1.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if first := strings.Split(string(text), "\n")[1]; !strings.HasPrefix(first, "0,1.5,75,") || strings.Count(first, ",") != 5 {
		t.Errorf("first row of web-1: %s", first)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil || string(manifest) != "file,ncpu,mem_total_bytes\ndb.csv,2,1073741824\nweb-1.csv,2,1073741824\n" {
		t.Errorf("manifest %s, %v", manifest, err)
	}
}

// stopAfter ends the context at the n-th wait.
func stopAfter(n int, stop func(), c clock) clock {
	return clock{c.now, func(wait time.Duration) <-chan time.Time {
		if n--; n == 0 {
			stop()
			return nil
		}
		return c.after(wait)
	}}
}

func TestRecordEndsWhenStopped(t *testing.T) {
	d, c := simulatedHost(t)
	ctx, stop := context.WithCancel(t.Context())
	dir := t.TempDir()
	f := &recordFlags{vms: []string{"id-db"}, out: dir, interval: time.Second}
	if err := recordLive(ctx, d, f, &bytes.Buffer{}, stopAfter(5, stop, c)); err != nil {
		t.Fatal(err)
	}
	if tr, err := trace.ReadFile(filepath.Join(dir, "db.csv")); err != nil || len(tr.Times) != 4 {
		t.Errorf("got %v, %v; want the 4 rows until then", tr, err)
	}
}

func TestRecordEndsWithItsVMs(t *testing.T) {
	d, c := simulatedHost(t)
	n := 0
	dying := clock{c.now, func(wait time.Duration) <-chan time.Time {
		if n++; n == 4 {
			if err := d.RemoveVM("id-db"); err != nil {
				t.Error(err)
			}
		}
		return c.after(wait)
	}}
	dir := t.TempDir()
	var log bytes.Buffer
	f := &recordFlags{vms: []string{"db"}, out: dir, interval: time.Second}
	if err := recordLive(t.Context(), d, f, &log, dying); err != nil {
		t.Fatal(err)
	}
	if tr, err := trace.ReadFile(filepath.Join(dir, "db.csv")); err != nil || len(tr.Times) != 3 || !strings.Contains(log.String(), "VM db has stopped") {
		t.Errorf("got %v, %v, %s", tr, err, log.String())
	}
}

// failing is a driver of which some readings fail.
type failing struct {
	*simulated.Driver
	reads, from, to int
}

func (f *failing) Read(ctx context.Context, ids []gnomon.VMID) ([]hypervisor.Counters, error) {
	if f.reads++; f.reads >= f.from && f.reads < f.to {
		return nil, fmt.Errorf("the connection is lost")
	}
	return f.Driver.Read(ctx, ids)
}

func TestRecordOutlivesLostReadings(t *testing.T) {
	d, c := simulatedHost(t)
	dir := t.TempDir()
	var log bytes.Buffer
	f := &recordFlags{vms: []string{"db"}, out: dir, interval: time.Second, duration: 9 * time.Second}
	if err := recordLive(t.Context(), &failing{Driver: d, from: 4, to: 7}, f, &log, c); err != nil {
		t.Fatal(err)
	}
	tr, err := trace.ReadFile(filepath.Join(dir, "db.csv"))
	if err != nil || !slices.Equal(tr.Times, []float64{0, 1, 5, 6, 7, 8}) {
		t.Errorf("got %v, %v; want a gap of three rows", tr, err)
	}
	if strings.Count(log.String(), "reading failed") != 1 {
		t.Errorf("log: %s", log.String())
	}
}

// slow is a driver that takes its time to read, once much of it.
type slow struct {
	*simulated.Driver
	reads int
}

func (s *slow) Read(ctx context.Context, ids []gnomon.VMID) ([]hypervisor.Counters, error) {
	counters, err := s.Driver.Read(ctx, ids)
	s.Advance(300 * time.Millisecond)
	if s.reads++; s.reads == 4 {
		s.Advance(2 * time.Second)
	}
	return counters, err
}

func TestRecordDoesNotDrift(t *testing.T) {
	d, c := simulatedHost(t)
	dir := t.TempDir()
	f := &recordFlags{vms: []string{"db"}, out: dir, interval: time.Second, duration: 9 * time.Second}
	if err := recordLive(t.Context(), &slow{Driver: d}, f, &bytes.Buffer{}, c); err != nil {
		t.Fatal(err)
	}
	// Readings are at 0, 1, 2, 3 s, then at once at 5.3 s, then at 6 to 9 s.
	tr, err := trace.ReadFile(filepath.Join(dir, "db.csv"))
	if err != nil || !slices.Equal(tr.Times, []float64{0, 1, 2, 4.3, 5, 6, 7, 8}) {
		t.Errorf("got %v, %v", tr, err)
	}
}

func TestRecordRefuses(t *testing.T) {
	d, c := simulatedHost(t)
	dir := t.TempDir()
	taken := filepath.Join(dir, "db.csv")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &recordFlags{vms: []string{"web-1", "db"}, out: dir, interval: time.Second, duration: 3 * time.Second}
	if err := recordLive(t.Context(), d, f, &bytes.Buffer{}, c); exitCode(err) != exitUsage || !strings.Contains(err.Error(), taken+" is there already") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("it began all the same: %v", left)
	}
	f.vms = []string{"web-1", "nobody"}
	if err := recordLive(t.Context(), d, f, &bytes.Buffer{}, c); exitCode(err) != exitNotFound || !strings.Contains(err.Error(), `"nobody"; there are: db, web-1`) {
		t.Errorf("got %v", err)
	}
}

func TestRecordFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--out", "x"},
		{"--vm", "a"},
		{"--vm", "[", "--out", "x"},
		{"--vm", "a", "--out", "x", "--interval", "1ms"},
		{"--vm", "a", "--out", "x", "--duration", "500ms"},
		{"--vm", "a", "--out", "x", "--interval", "10s", "--duration", "5s"},
		{"--vm", "a", "--out", "x", "--from", "hearsay"},
		{"--vm", "a", "--out", "x", "--start", "1h"},
		{"--vm", "a", "--out", "x", "--from", "history", "--duration", "1h"},
		{"--vm", "a", "--out", "x", "--from", "history", "--start", "1m", "--end", "2m"},
		{"--vm", "a", "--out", "x", "surplus"},
	} {
		if _, err := execute(t, recordCommand(), args...); exitCode(err) != exitUsage {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

func TestManifestWithOtherColumns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, manifestName)
	if err := os.WriteFile(path, []byte("file,note,ncpu\nold.csv,\"a, b\",4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newTraceFile(dir, "a,b/c", 8, 0)
	for i := range 2 {
		if err := f.write(time.Unix(int64(i), 0), traceRow{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "file,note,ncpu\nold.csv,\"a, b\",4\n\"a,b_c.csv\",,8\n" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestRecordFromHistory(t *testing.T) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Truncate(time.Second)
	var points []history.Point
	for s := range 60 {
		if s == 30 {
			continue // a sample was lost
		}
		points = append(points, history.FromSample(history.VM{Name: "db", ID: "id-db"}, gnomon.Sample{
			At: end.Add(time.Duration(s-60)*time.Second - 300*time.Millisecond), Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory),
			Usage: gnomon.Resources{int64(1000 + s), 1 << 30}}, gnomon.Resources{})...)
	}
	if err := db.Client().Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.StripPrefix("/history", db))
	t.Cleanup(func() { srv.Close(); _ = db.Close() })
	dir := t.TempDir()
	args := []string{"--from", "history", "--history-url", srv.URL + "/history", "--out", dir, "--start", end.Add(-time.Minute).Format(time.RFC3339), "--end", end.Format(time.RFC3339)}
	if _, err := execute(t, recordCommand(), append(args, "--vm", "db")...); err != nil {
		t.Fatal(err)
	}
	tr, err := trace.ReadFile(filepath.Join(dir, "db.csv"))
	if err != nil {
		t.Fatal(err)
	}
	cpu := tr.Column("cpu_cores")
	if len(cpu) != 59 || cpu[0] != 1 || cpu[58] != 1.059 || tr.Times[30]-tr.Times[29] != 2 || tr.Column("mem_used_bytes")[7] != 1<<30 || tr.Column("cpu_pct") != nil {
		t.Errorf("got %v", tr)
	}
	if _, err := execute(t, recordCommand(), append(args, "--vm", "db")...); exitCode(err) != exitUsage {
		t.Errorf("it overwrites: %v", err)
	}
	if _, err := execute(t, recordCommand(), append(args, "--vm", "nobody")...); exitCode(err) != exitNotFound {
		t.Errorf("an unknown VM: %v", err)
	}
}
