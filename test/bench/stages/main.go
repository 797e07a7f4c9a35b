// Command stages measures how long each stage of a decision takes with many VMs
// on a host, each with a shadow VM of its own: from the usage event that is
// published to the agent's proposal, from an event to the decision in the ledger,
// and from the decision to the limit that libvirt has set and the daemon read back.
//
// The VMs are real and boot nothing, so that a machine carries many. What they do
// not demand is requested for them: a level of CPU for each, once a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gnomon-vm/gnomon/host"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/test/bench/rig"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

func main() {
	vms := rig.Counts{1, 10, 50}
	flag.Var(&vms, "vms", "numbers of VMs")
	window := flag.Duration("window", 30*time.Second, "how long each is measured")
	rig.Main("bench-stages", func(ctx context.Context) error { return run(ctx, vms, *window) })
}

func run(ctx context.Context, counts rig.Counts, window time.Duration) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "VMs\tstage\tn\tp50 ms\tp99 ms")
	defer out.Flush() // also what was measured before an error
	for _, n := range counts {
		stages, err := measure(ctx, n, window)
		if err != nil {
			return fmt.Errorf("%d VMs: %w", n, err)
		}
		for _, s := range stages {
			fmt.Fprintf(out, "%d\t%s\t%d\t%.2f\t%.2f\n", n, s.name, s.count, 1000*s.quantile(0.5), 1000*s.quantile(0.99))
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(out, "load average at the end: %s", load)
	return nil
}

// configured has limits follow what is requested and what is not needed any more,
// and never refuses.
const configured = `{"desired":{"global":{"hold":"500ms","overcommit":"cpu=1000%","scalingPolicy":"fixed"}}}`

var image = filepath.Join("build", "appliance")

func measure(ctx context.Context, n int, window time.Duration) (stages []stage, err error) {
	r, err := rig.Open(ctx, ".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var names []string
	for range n {
		g, err := r.StartBare(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, g.Name)
	}
	dir, err := os.MkdirTemp("", "gnbs-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // shadows have users of their own
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte(configured), 0o600); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	const probing = 20 * time.Second
	accel, _ := shadow.ProbeAccel(ctx, image, probing)
	launcher, err := shadow.NewLauncher(shadow.Options{
		Appliance: image, RunDir: filepath.Join(dir, "run"), Accel: accel, Log: log,
	})
	if err != nil {
		return nil, err
	}
	defer launcher.Close()
	sel, err := host.ParseSelection(rig.Prefix() + "*")
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	d, err := host.New(host.Options{
		Name: "bench", Driver: r.Driver, Shadows: launcher, Select: sel, StateDir: dir, Registry: registry, Log: log,
	})
	if err != nil {
		return nil, err
	}
	stop := rig.Run(ctx, d)
	defer func() { err = errors.Join(err, stop()) }()
	api := d.API()
	if err := awaitShadows(ctx, api, n); err != nil {
		return nil, err
	}
	before, err := read(registry)
	if err != nil {
		return nil, err
	}
	if err := requests(ctx, api, names, window); err != nil {
		return nil, err
	}
	after, err := read(registry)
	return since(before, after), err
}

// awaitShadows waits until all agents are connected.
func awaitShadows(ctx context.Context, api host.API, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		res, err := api.ListShadows(ctx, connect.NewRequest(&hostpb.ListShadowsRequest{}))
		if err != nil {
			return fmt.Errorf("list shadows: %w", err)
		}
		connected := 0
		for _, s := range res.Msg.GetShadows() {
			if s.GetConnected() {
				connected++
			}
		}
		if connected == n {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for shadows: %d of %d are connected: %w", connected, n, ctx.Err())
		}
	}
}

// requests asks for a level of CPU for every VM once a second, spread over it.
func requests(ctx context.Context, api host.API, names []string, window time.Duration) error {
	tick := time.NewTicker(time.Second / time.Duration(len(names)))
	defer tick.Stop()
	end := time.After(window)
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		level := int64(600 + 100*(i/len(names)%4)) // millicores
		req := &hostpb.RequestResourcesRequest{Vm: names[i%len(names)], Resource: "cpu", Level: level}
		if _, err := api.RequestResources(ctx, connect.NewRequest(req)); err != nil {
			return fmt.Errorf("request CPU: %w", err)
		}
	}
}
