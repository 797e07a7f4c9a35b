package history_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/embedded"
)

// engines are all that the client is to work with.
var engines = []struct {
	name  string
	start func(*testing.T) *history.Client
}{
	{"embedded", startEmbedded},
	{"prometheus", startPrometheus},
	{"victoria-metrics", startVictoriaMetrics},
}

func startEmbedded(t *testing.T) *history.Client {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db.Client()
}

func startPrometheus(t *testing.T) *history.Client {
	t.Helper()
	start, url := prometheusIn(t, t.TempDir())
	start(t)
	return connect(t, url, nil)
}

// prometheusIn returns what starts Prometheus on a directory, and where it is then.
func prometheusIn(t *testing.T, dir string) (start func(*testing.T) *process, url string) {
	return prometheusWith(t, dir)
}

// prometheusWith is prometheusIn with more flags.
func prometheusWith(t *testing.T, dir string, more ...string) (start func(*testing.T) *process, url string) {
	t.Helper()
	conf := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(conf, []byte("storage:\n  tsdb:\n    out_of_order_time_window: 10m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddress(t)
	return func(t *testing.T) *process {
		t.Helper()
		return startProcess(t, "http://"+addr+"/-/ready", "prometheus", append(more,
			"--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"),
			"--web.listen-address="+addr, "--web.enable-remote-write-receiver")...)
	}, "http://" + addr
}

func startVictoriaMetrics(t *testing.T) *history.Client {
	t.Helper()
	start, url := victoriaMetricsIn(t, t.TempDir())
	start(t)
	return connect(t, url, flushing{})
}

// victoriaMetricsIn is likewise for VictoriaMetrics.
func victoriaMetricsIn(t *testing.T, dir string) (start func(*testing.T) *process, url string) {
	t.Helper()
	addr := freeAddress(t)
	return func(t *testing.T) *process {
		t.Helper()
		return startProcess(t, "http://"+addr+"/health", "victoria-metrics",
			"-storageDataPath="+dir, "-httpListenAddr="+addr,
			"-search.latencyOffset=0", "-dedup.minScrapeInterval=1ms", "-memory.allowedBytes=64MiB")
	}, "http://" + addr
}

// flushing has VictoriaMetrics show at once what was written; by itself it
// takes up to 10 s.
type flushing struct{}

func (flushing) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil && strings.HasSuffix(req.URL.Path, "/write") {
		if flush, err := http.Get("http://" + req.URL.Host + "/internal/force_flush"); err == nil {
			flush.Body.Close()
		}
	}
	return res, err
}

func connect(t *testing.T, url string, transport http.RoundTripper) *history.Client {
	t.Helper()
	c, err := history.New(url, transport)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// process is an external engine that runs.
type process struct{ cmd *exec.Cmd }

// stop ends it in order.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// startProcess runs an external engine, until the test ends at the latest, and
// waits until it is ready.
func startProcess(t *testing.T, ready, name string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("GNOMON_REQUIRE_EXTERNAL") == "1" {
			t.Fatalf("%s is not installed, and GNOMON_REQUIRE_EXTERNAL=1 wants it", name)
		}
		t.Skipf("%s is not installed: apt-get install --no-install-recommends %s", name, name)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", name, out)
		}
	})
	eventually(t, name+" is ready", func() bool {
		res, err := http.Get(ready)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return &process{cmd}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
