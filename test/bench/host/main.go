// Command host measures what the host daemon costs by the number of VMs: its own
// CPU time and memory, and libvirt's CPU time, beside a program that asks
// libvirt for each VM's each metric by a call of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/gnomon-vm/gnomon/test/bench/rig"
)

func main() {
	real, simulated := rig.Counts{1, 10, 50}, rig.Counts{1, 10, 50, 200}
	flag.Var(&real, "real", "numbers of real VMs")
	flag.Var(&simulated, "simulated", "numbers of simulated VMs")
	window := flag.Duration("window", 20*time.Second, "how long each is measured")
	out := flag.String("json", "", "file for the figures as JSON")
	rig.Main("bench-host", func(ctx context.Context) error { return run(ctx, real, simulated, *window, *out) })
}

// cost is what one way of watching a number of VMs once a second takes.
type cost struct {
	VMs  int    `json:"vms"`
	Kind string `json:"kind"` // daemon or naive, real or simulated VMs

	// Percent of one core: the program's own, and libvirtd's.
	CPU     float64 `json:"cpu_percent"`
	Libvirt float64 `json:"libvirtd_percent"`

	Memory int64 `json:"memory_bytes"` // the program's own, proportional
}

func run(ctx context.Context, real, simulated rig.Counts, window time.Duration, out string) error {
	var costs []cost
	defer func() { print(costs) }() // also what was measured before an error
	for _, kind := range []struct {
		counts  rig.Counts
		measure func(context.Context, int, time.Duration) ([]cost, error)
	}{{simulated, onSimulated}, {real, onReal}} {
		for _, n := range kind.counts {
			c, err := kind.measure(ctx, n, window)
			costs = append(costs, c...)
			if err != nil {
				return fmt.Errorf("%d VMs: %w", n, err)
			}
		}
	}
	return rig.WriteJSON(out, costs)
}

func print(costs []cost) {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VMs\t\tCPU %\tfor each 20 VMs\tlibvirtd %\tmemory MiB")
	for _, c := range costs {
		fmt.Fprintf(t, "%d\t%s\t%.2f\t%.2f\t%.2f\t%d\n",
			c.VMs, c.Kind, c.CPU, c.CPU*20/float64(c.VMs), c.Libvirt, c.Memory>>20)
	}
	t.Flush()
}
