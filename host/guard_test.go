package host

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/faulty"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// held is a state directory of a daemon that held vm1's CPU down.
func held(t *testing.T) (*simulated.Driver, string) {
	t.Helper()
	sim := simulated.New(simulated.Options{})
	dir := t.TempDir()
	for _, id := range []gnomon.VMID{"vm1", "vm2"} {
		if err := sim.AddVM(simulated.Spec{ID: id, VCPUs: 2}); err != nil {
			t.Fatal(err)
		}
	}
	machines, err := sim.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state, err := openState(dir + "/host.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		if _, err := state.original(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sim.Apply(t.Context(), "vm1", gnomon.CPU, 150, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	if err := sim.RemoveVM("vm2"); err != nil {
		t.Fatal(err)
	}
	return sim, dir
}

func cpuLimit(t *testing.T, sim *simulated.Driver) int64 {
	t.Helper()
	machines, err := sim.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return machines[0].Original.Limits[gnomon.CPU]
}

func TestGuard(t *testing.T) {
	for _, test := range []struct {
		name   string
		pipe   string // what the daemon wrote before its end
		locked bool   // another daemon runs
		want   int64
	}{
		{"killed", "", false, hypervisor.Unlimited},
		{"stopped cleanly", guardClean, false, 150},
		{"another took over", "", true, 150},
		{"killed while it said so", "cle", false, hypervisor.Unlimited},
	} {
		t.Run(test.name, func(t *testing.T) {
			sim, dir := held(t)
			if test.locked {
				lock, err := Lock(dir)
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
			}
			connect := func() (hypervisor.Driver, error) { return unclosed{sim}, nil }
			err := Guard(t.Context(), strings.NewReader(test.pipe), nil, connect, dir, time.Millisecond, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if got := cpuLimit(t, sim); got != test.want {
				t.Errorf("CPU limit %d, want %d", got, test.want)
			}
		})
	}
}

// unclosed keeps the simulated host open for the test to look at.
type unclosed struct{ hypervisor.Driver }

func (unclosed) Close() error { return nil }

func TestLockIsExclusive(t *testing.T) {
	dir := t.TempDir()
	lock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second lock: %v", err)
	}
	lock.Close()
	again, err := Lock(dir)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	again.Close()
}

// A signal that came while the daemon lived does not count; one that comes
// afterwards ends the grace.
func TestGuardHurriesWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, dir := held(t)
		connect := func() (hypervisor.Driver, error) { return unclosed{sim}, nil }
		hurry := make(chan os.Signal, 1)
		hurry <- os.Interrupt
		in, daemon := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- Guard(t.Context(), in, hurry, connect, dir, time.Hour, slog.New(slog.DiscardHandler))
		}()
		daemon.Close()
		synctest.Wait()
		if got := cpuLimit(t, sim); got != 150 {
			t.Errorf("CPU limit %d before the grace ended", got)
		}
		began := time.Now()
		hurry <- os.Interrupt
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("restored after %v", took)
		}
		if got := cpuLimit(t, sim); got != hypervisor.Unlimited {
			t.Errorf("CPU limit %d, want none", got)
		}
	})
}

func TestGuardTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, dir := held(t)
		tries := 0
		connect := func() (hypervisor.Driver, error) {
			switch tries++; tries {
			case 1:
				return nil, errors.New("not there yet")
			case 2:
				return unclosed{faulty.Wrap(sim, faulty.Fault{Op: faulty.Restore, Error: "busy"})}, nil
			}
			return unclosed{sim}, nil
		}
		if err := Guard(t.Context(), strings.NewReader(""), nil, connect, dir, time.Second, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if got := cpuLimit(t, sim); got != hypervisor.Unlimited || tries != 3 {
			t.Errorf("CPU limit %d after %d tries, want none after 3", got, tries)
		}
	})
}
