package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/prometheus/common/model"
)

// safeBuffer is a log that can be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startCentral runs server and history as `gnomon server` does.
func startCentral(t *testing.T, f *centralFlags, log *slog.Logger) (c *central, url string, stop func()) {
	t.Helper()
	f.listen = "127.0.0.1:0"
	listener, err := listenCentral(f)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = openCentral(f, listener, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		c.close()
	})
	t.Cleanup(stop)
	return c, "http://" + listener.Addr().String(), stop
}

// within waits for a condition, looking often.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.After(limit); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain for %s", limit, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// reportVMs has a host connect and report VMs, then leave.
func reportVMs(t *testing.T, url, host string, vms ...*serverpb.Association) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	connected := make(chan struct{}, 100)
	var running sync.WaitGroup
	link := hostlink.New(hostlink.Options{
		Servers: hostlink.Servers{URLs: []string{url}},
		OnState: func(*serverpb.DesiredState) { connected <- struct{}{} },
	})
	running.Go(func() { link.Run(ctx, &serverpb.WatchRequest{Host: host}) })
	defer running.Wait()
	defer cancel()
	<-connected
	if err := link.Report(ctx, &serverpb.ReportRequest{Host: host, Associations: vms}); err != nil {
		t.Fatal(err)
	}
}

func TestRetentionOfOneVM(t *testing.T) {
	flags := &centralFlags{dataDir: t.TempDir()}
	c, url, stop := startCentral(t, flags, slog.New(slog.DiscardHandler))
	now := time.Now()
	var points []history.Point
	for age := 155; age > 0; age -= 10 { // minutes
		for _, vm := range []string{"web", "db", "old"} {
			points = append(points, history.Point{Metric: "m", Value: 1, At: now.Add(-time.Duration(age) * time.Minute), Labels: []history.Label{
				{Name: "vm_id", Value: "id-" + vm}, {Name: "host", Value: "node1"}, {Name: "account", Value: "acme"}}})
		}
	}
	if err := c.history.Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
	reportVMs(t, url, "node1", &serverpb.Association{Vm: "id-web", VmName: "web", Account: "acme"},
		&serverpb.Association{Vm: "id-db", VmName: "db", Account: "acme"})
	kept := func(c *central) string {
		v, err := c.history.Query(t.Context(), "count_over_time(m[1d])", now)
		if err != nil {
			t.Fatal(err)
		}
		n := map[model.LabelValue]int{}
		for _, s := range v.(model.Vector) {
			n[s.Metric["vm_id"]] = int(s.Value)
		}
		return fmt.Sprintf("web %d, db %d, old %d", n["id-web"], n["id-db"], n["id-old"])
	}
	change := func(c *central, args, want string) {
		t.Helper()
		if _, err := gnomonCommand(append([]string{"config", "--server", "http://" + c.listener.Addr().String()}, strings.Fields(args)...)...); err != nil {
			t.Fatal(err)
		}
		last := ""
		defer func() {
			if t.Failed() {
				t.Logf("after config %s: %s, want %s", args, last, want)
			}
		}()
		within(t, 2*time.Second, "the retention", func() bool { last = kept(c); return last == want })
	}
	if got := kept(c); got != "web 16, db 16, old 16" {
		t.Fatal(got)
	}
	change(c, "set historyRetentionPeriod=1h --vm web", "web 6, db 16, old 16")
	// A VM that ended has what its host has, even where that is less.
	change(c, "set historyRetentionPeriod=2h --host node1", "web 6, db 12, old 12")
	change(c, "set historyRetentionPeriod=1h", "web 6, db 12, old 12")

	stop()
	c, _, _ = startCentral(t, flags, slog.New(slog.DiscardHandler))
	within(t, 2*time.Second, "the retention after a restart", func() bool { return kept(c) == "web 6, db 12, old 12" })
}

func TestRetentionOfAnExternalHistory(t *testing.T) {
	var log safeBuffer
	flags := &centralFlags{dataDir: t.TempDir(), history: serveHistory(t)}
	_, url, _ := startCentral(t, flags, slog.New(slog.NewTextHandler(&log, nil)))
	for _, value := range []string{"2d", "15d", "3d"} {
		if _, err := gnomonCommand("config", "--server", url, "set", "historyRetentionPeriod="+value); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "the warning", func() bool { return strings.Contains(log.String(), "historyRetentionPeriod has no effect") })
	}
	if n := strings.Count(log.String(), "historyRetentionPeriod"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, log.String())
	}
}

func TestSweepOfAnExternalHistory(t *testing.T) {
	if _, err := listenCentral(&centralFlags{listen: "127.0.0.1:0", sweep: true}); err == nil || !strings.Contains(err.Error(), "--history-sweep: want --history-url") {
		t.Errorf("without an external history: %v", err)
	}
	var log safeBuffer
	flags := &centralFlags{dataDir: t.TempDir(), history: serveHistory(t), sweep: true}
	startCentral(t, flags, slog.New(slog.NewTextHandler(&log, nil)))
	within(t, time.Minute, "the sweep", func() bool { return strings.Contains(log.String(), "neither Prometheus nor VictoriaMetrics") })
	if strings.Contains(log.String(), "no effect") {
		t.Errorf("it says both:\n%s", log.String())
	}
}

func TestHostRemoved(t *testing.T) {
	_, url, _ := startCentral(t, &centralFlags{dataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	t.Setenv("GNOMON_SERVER", url)
	reportVMs(t, url, "node1")
	if out, err := gnomonCommand("__complete", "host", "rm", "n"); err != nil || !strings.Contains(out, "node1") {
		t.Errorf("completion: %v\n%s", err, out)
	}
	var out string
	within(t, 5*time.Second, "the host to be removed", func() (ok bool) {
		var err error
		out, err = gnomonCommand("host", "rm", "node1") // refused until the server sees that the stream ended
		return err == nil
	})
	if out != "host node1 removed\n" {
		t.Errorf("it said %q", out)
	}
	if out, err := gnomonCommand("host", "ls"); err != nil || strings.Contains(out, "node1") {
		t.Errorf("%v: still there:\n%s", err, out)
	}
}
