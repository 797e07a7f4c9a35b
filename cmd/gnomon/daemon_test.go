package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/host"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/recording"
)

// noShadows are the shadows of a host that is configured to have none.
type noShadows struct{ host.Shadows }

func (noShadows) Machines(context.Context) ([]hypervisor.Machine, error) { return nil, nil }
func (noShadows) Watch(context.Context, func(gnomon.VMID)) error         { return nil }

// startDaemon serves the API of a daemon on a simulated host with the VMs web1,
// taken in, and db1, left alone, and returns its socket and the folder that it
// records in.
func startDaemon(t *testing.T) (socket, recorded string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gn") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, recorded = filepath.Join(dir, "host.sock"), filepath.Join(dir, "recording")
	if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte(`{"desired":{"global":{"shadow.enabled":"false","hold":"200ms","monitoringInterval":"100ms","predictionHorizon":"1s"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := simulated.New(simulated.Options{Start: time.Now(), Total: gnomon.Resources{gnomon.CPU: 4000, gnomon.Memory: 8 << 30}})
	for _, name := range []string{"web1", "db1"} {
		err := sim.AddVM(simulated.Spec{ID: gnomon.VMID("id-" + name), Name: name, VCPUs: 2, NoDisk: true,
			Demand: [gnomon.NumResources]simulated.Demand{simulated.Constant(300), simulated.Constant(200 << 20), nil, nil}})
		if err != nil {
			t.Fatal(err)
		}
	}
	rec, err := recording.Create(recorded, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sel, err := host.ParseSelection("web*")
	if err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	d, err := host.New(host.Options{Name: "node1", Version: "test", Accel: "tcg", Driver: sim, Shadows: noShadows{}, Select: sel,
		StateDir: dir, Recorder: rec, Registry: registry, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var daemon, clock sync.WaitGroup
	done := make(chan struct{})
	clock.Go(func() { // goes on until the daemon has given limits back
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				sim.Advance(time.Since(sim.Now()))
			case <-done:
				tick.Stop()
				return
			}
		}
	})
	daemon.Go(func() {
		f := &daemonFlags{name: "node1", socket: socket}
		if err := serveDaemon(ctx, f, &hostParts{clean: func() {}}, d, daemonDeps{registry: registry, log: log}); err != nil {
			t.Error(err)
		}
		rec.Close()
	})
	t.Cleanup(func() {
		stop()
		daemon.Wait()
		close(done)
		clock.Wait()
		sim.Close()
	})
	return socket, recorded
}

// eventually runs a command until it prints what is wanted.
func eventually(t *testing.T, want string, args ...string) string {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		out, err := gnomonCommand(args...)
		if err == nil && strings.Contains(out, want) {
			tick.Stop()
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("gnomon %s: %v, want %q within a minute in\n%s", strings.Join(args, " "), err, want, out)
		}
	}
}

// What an operator types on a host, against a daemon.
func TestHostCommands(t *testing.T) {
	socket, recorded := startDaemon(t)
	t.Setenv("GNOMON_SOCKET", socket)
	run, fails := commands(t)
	eventually(t, "web1  -        running  standard", "vm", "ls")

	for line, want := range map[string]string{
		"vm ls --all":           "db1",
		"vm show web1":          "Policy:   standard",
		"vm show id-web1":       "not limited: ",
		"vm explain db1":        "The VM is not taken in",
		"vm request web1 cpu 1": "granted: ",
		"top":                   "node1   accel tcg   hypervisor connected",
		"top --once":            "web1  standard  cpu",
		"host status":           "network   unbounded",
		"shadow ls":             "NAME  VM  ACCOUNT",
		"__complete vm show w":  "db1\nweb1\n:4",
	} {
		if out := run(strings.Fields(line)...); !strings.Contains(out, want) {
			t.Errorf("gnomon %s: want %q in\n%s", line, want, out)
		}
	}
	eventually(t, "Latest decisions:", "vm", "explain", "web1")
	for _, line := range []string{"vm ls -o json", "vm show web1 -o json", "vm explain web1 -o json", "host status -o json", "shadow ls -o json", "vm request web1 memory 512MiB -o json"} {
		if out := run(strings.Fields(line)...); !json.Valid([]byte(out)) {
			t.Errorf("gnomon %s is no JSON:\n%s", line, out)
		}
	}

	fails(exitNotFound, `vm "nosuch": no running VM of that name or id`, "vm", "show", "nosuch")
	fails(exitNotFound, `shadow "nosuch": no such shadow`, "shadow", "show", "nosuch")
	fails(exitNotFound, `shadow "nosuch": no such shadow`, "shadow", "suspend", "nosuch")
	fails(exitUsage, `vm "db1" is not taken in: "gnomon vm enroll db1" does that`, "vm", "request", "db1", "cpu", "1")
	fails(exitUsage, "--last 0: want 1 to 256", "vm", "explain", "web1", "--last", "0")
	fails(exitUsage, "--ahead 2m0s: want 0 to --lifetime (1m0s)", "vm", "request", "web1", "cpu", "1", "--ahead", "2m")
	fails(exitUsage, `unknown resource "gpu"`, "vm", "request", "web1", "gpu", "1")
	fails(exitFailure, "request denied: its shadow is switched off (shadow.enabled), so nothing is reserved for it", "vm", "request", "web1", "cpu", "1", "--ahead", "5s")

	if out := run("vm", "enroll", "db1"); out != "db1 is taken in\n" {
		t.Errorf("enroll said %q", out)
	}
	eventually(t, "db1", "vm", "ls")
	if out := run("vm", "release", "web1"); out != "web1 is released\n" {
		t.Errorf("release said %q", out)
	}
	if out := run("vm", "ls"); strings.Contains(out, "web1") {
		t.Errorf("a VM that was released is listed:\n%s", out)
	}
	eventually(t, "id-web1", "replay", recorded)
	fails(exitFailure, "no such file", "replay", filepath.Join(recorded, "nosuch"))
	fails(exitFailure, "no recording in", "replay", t.TempDir())

	client := unixClient(socket, func(err error) error { return err })
	r, err := client.Get("http://host/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK || !strings.Contains(string(b), "gnomon_host_decisions_total") {
		t.Errorf("metrics: %s\n%s", r.Status, b)
	}
}
