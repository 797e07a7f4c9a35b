// Command host measures what the host daemon costs by the number of VMs: its own
// CPU time and memory, and libvirt's CPU time, beside a program that asks
// libvirt for each VM's each metric by a call of its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	real := flag.String("real", "1,10,50", "numbers of real VMs")
	simulated := flag.String("simulated", "1,10,50,200", "numbers of simulated VMs")
	window := flag.Duration("window", 20*time.Second, "how long each is measured")
	out := flag.String("json", "", "file for the figures as JSON")
	flag.Parse()
	if err := run(ctx, *real, *simulated, *window, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench-host:", err)
		os.Exit(1)
	}
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

func run(ctx context.Context, real, simulated string, window time.Duration, out string) error {
	var costs []cost
	defer func() { print(costs) }() // also what was measured before an error
	for _, kind := range []struct {
		counts  string
		measure func(context.Context, int, time.Duration) ([]cost, error)
	}{{simulated, onSimulated}, {real, onReal}} {
		for text := range strings.SplitSeq(kind.counts, ",") {
			if text == "" {
				continue
			}
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return fmt.Errorf("%q VMs: want numbers of 1 or more", text)
			}
			c, err := kind.measure(ctx, n, window)
			costs = append(costs, c...)
			if err != nil {
				return fmt.Errorf("%d VMs: %w", n, err)
			}
		}
	}
	if out == "" {
		return nil
	}
	b, err := json.MarshalIndent(costs, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
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
