package host

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// rig is a daemon on a simulated hypervisor whose shadows are real agents in
// this process, over real sockets.
type rig struct {
	t      *testing.T
	sim    *simulated.Driver
	agents *agents
	dir    string
	opt    Options
	daemon *Daemon
	api    API
	stop   func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	sim := simulated.New(simulated.Options{Start: time.Now()})
	r := &rig{t: t, sim: sim, dir: shortDir(t)}
	r.agents = &agents{dir: r.dir, running: map[gnomon.VMID]*inProcess{}}
	all, _ := ParseSelection("all")
	r.opt = Options{
		Name: "test-host", Version: "test", Accel: "tcg", Driver: sim, Noter: sim, Shadows: r.agents, Select: all,
		StateDir: filepath.Join(r.dir, "state"), Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	clock := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sim.Advance(time.Since(sim.Now()))
			case <-clock:
				return
			}
		}
	})
	t.Cleanup(func() { close(clock); wg.Wait() })
	return r
}

// shortDir is a temporary directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gn")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}

// layers configures a VM as the server would, with a short interval.
func (r *rig) configure(values map[string]string) {
	v := map[string]string{"monitoringInterval": "100ms", "predictionHorizon": "1s", "hold": "1s", "limits.ceiling": "disk=20MB/s,network=20MB/s"}
	for k, x := range values {
		v[k] = x
	}
	if r.daemon == nil {
		state, err := openState(r.statePath())
		if err != nil {
			r.t.Fatal(err)
		}
		if err := state.setDesired(desired{Global: v}); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	r.do(func() { r.daemon.instructed(desired{Revision: r.daemon.desired.Revision + 1, Global: v}) })
}

func (r *rig) statePath() string { return filepath.Join(r.opt.StateDir, "host.json") }

func (r *rig) start() {
	r.t.Helper()
	d, err := New(r.opt)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	r.daemon, r.api = d, d.API()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				r.t.Errorf("Run: %v", err)
			}
		})
	}
	r.t.Cleanup(r.stop)
}

// do runs f in the daemon's loop.
func (r *rig) do(f func()) {
	r.t.Helper()
	if err := r.daemon.call(r.t.Context(), func() error { f(); return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits until cond, run in the daemon's loop, holds.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		ok := false
		r.do(func() { ok = cond() })
		if ok {
			return
		}
		<-tick.C
	}
	r.t.Fatalf("not within 15 s: %s", what)
}

func (r *rig) add(spec simulated.Spec) gnomon.VMID {
	r.t.Helper()
	if err := r.sim.AddVM(spec); err != nil {
		r.t.Fatal(err)
	}
	return spec.ID
}

// limit returns a VM's limit as the hypervisor has it.
func (r *rig) limit(id gnomon.VMID, res gnomon.Resource) int64 {
	r.t.Helper()
	return r.machine(id).Original.Limits[res]
}

// machine returns a VM as the hypervisor lists it.
func (r *rig) machine(id gnomon.VMID) hypervisor.Machine {
	r.t.Helper()
	machines, err := r.sim.Machines(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range machines {
		if m.ID == id {
			return m
		}
	}
	r.t.Fatalf("%s does not run", id)
	return hypervisor.Machine{}
}

var _ io.Writer = testWriter{}
