package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/host"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/test/bench/rig"
)

// withoutShadows is a daemon's state in which its VMs have no shadow: what
// shadows cost is another benchmark's matter.
const withoutShadows = `{"desired":{"global":{"shadow.enabled":"false"}}}`

// settle is how long a daemon is left to take its VMs in.
const settle = 5 * time.Second

// none are the shadows of a host that is to have none: nothing else is asked of them.
type none struct{ host.Shadows }

func (none) Machines(context.Context) ([]hypervisor.Machine, error) { return nil, nil }
func (none) Watch(context.Context, func(gnomon.VMID)) error         { return nil }

// daemonOn measures a daemon in this process, with a source of onsets or none. It
// takes in the VMs whose names match.
func daemonOn(ctx context.Context, driver hypervisor.Driver, source pressure.Source, names string, n int, kind string, window time.Duration) (c cost, err error) {
	dir, err := os.MkdirTemp("", "gnomon-bench-host-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte(withoutShadows), 0o600); err != nil {
		return c, err
	}
	sel, err := host.ParseSelection(names)
	if err != nil {
		return c, err
	}
	d, err := host.New(host.Options{
		Name: "bench", Driver: driver, Pressure: source, Shadows: none{}, Select: sel, StateDir: dir,
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return c, err
	}
	stop := rig.Run(ctx, d)
	defer func() { err = errors.Join(err, stop()) }()
	time.Sleep(settle)
	if c, err = during(ctx, window); err != nil {
		return c, err
	}
	c.VMs, c.Kind = n, kind
	return c, nil
}

// onSimulated measures the daemon, and what simulating its VMs takes, which is
// no part of its cost.
func onSimulated(ctx context.Context, n int, window time.Duration) ([]cost, error) {
	sim := simulated.New(simulated.Options{
		Start: time.Now(), Total: gnomon.Resources{gnomon.CPU: 1000 * int64(n), gnomon.Memory: int64(2*n+2) << 30},
	})
	defer sim.Close()
	for i := range n {
		spec := simulated.Spec{
			ID: gnomon.VMID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i)), Name: fmt.Sprintf("bench-%d", i),
			Demand: [gnomon.NumResources]simulated.Demand{gnomon.CPU: waves(100, 800, i), gnomon.Memory: waves(200<<20, 600<<20, i)},
		}
		if err := sim.AddVM(spec); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		const step = 100 * time.Millisecond
		for tick := time.NewTicker(step); ; {
			select {
			case <-tick.C:
				sim.Advance(step)
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	alone, err := during(ctx, window)
	if err != nil {
		return nil, err
	}
	c, err := daemonOn(ctx, sim, nil, "all", n, "daemon, simulated VMs", window)
	c.CPU, c.Libvirt = max(0, c.CPU-alone.CPU), 0
	return []cost{c}, err
}

// waves is a demand that changes every few seconds, so that limits move.
func waves(low, high int64, phase int) simulated.Demand {
	return func(since time.Duration) int64 {
		if (int(since.Seconds())+phase)/10%2 == 0 {
			return low
		}
		return high
	}
}

// onReal measures the daemon and the naive way on VMs of QEMU that boot nothing:
// to read one costs what it costs to read one that does.
func onReal(ctx context.Context, n int, window time.Duration) (costs []cost, err error) {
	r, err := rig.Open(ctx, ".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for range n {
		if _, err := r.StartBare(ctx); err != nil {
			return nil, err
		}
	}
	c, err := daemonOn(ctx, r.Driver, r.Pressure, rig.Prefix()+"*", n, "daemon, real VMs", window)
	if err != nil {
		return nil, err
	}
	naive, err := naiveOn(ctx, n, window)
	return []cost{c, naive}, err
}
