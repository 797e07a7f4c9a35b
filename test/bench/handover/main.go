// Command handover measures on real guests how long a VM waits for a resource
// that another VM holds: handed over from a reservation, by the standard path
// after an event or after a poll, and with no limit at all. The decisions are
// the product's own broker's, and the changes its libvirt driver's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/test/bench/rig"
)

func main() {
	runs := flag.Int("runs", 20, "runs of each mode, 1 or more")
	only := flag.String("resources", "cpu,memory,disk,network", "resources to measure")
	out := flag.String("json", "", "file for the figures as JSON")
	rig.Main("bench-handover", func(ctx context.Context) error { return run(ctx, *runs, *only, *out) })
}

func run(ctx context.Context, runs int, only, out string) (err error) {
	var resources []gnomon.Resource
	for name := range strings.SplitSeq(only, ",") {
		r, err := gnomon.ParseResource(name)
		if err != nil {
			return err
		}
		resources = append(resources, r)
	}
	if runs < 1 {
		return fmt.Errorf("-runs %d: want 1 or more", runs)
	}
	r, err := rig.Open(ctx, ".")
	if err != nil {
		return err
	}
	defer func() {
		if e := r.Close(); err == nil {
			err = e
		}
	}()
	s, err := newStand(ctx, r)
	if err != nil {
		return err
	}
	var rows []row
	for _, res := range resources {
		took, err := s.compare(ctx, res, runs)
		rows = append(rows, took...)
		printTable(os.Stdout, took)
		if err != nil { // what was measured until then stands
			return errors.Join(err, rig.WriteJSON(out, rows))
		}
	}
	return rig.WriteJSON(out, rows)
}

// compare measures every mode. They take turns, so that what else the machine
// does meets all alike.
func (s *stand) compare(ctx context.Context, r gnomon.Resource, runs int) ([]row, error) {
	rows := make([]row, len(modes))
	for i, m := range modes {
		rows[i] = row{Resource: r, Mode: m.name}
	}
	for n := range runs {
		for i, m := range modes {
			o, err := s.tried(ctx, r, m)
			if err != nil {
				return rows, fmt.Errorf("%s, %s, run %d: %w", r, m.name, n+1, err)
			}
			rows[i].add(o)
			fmt.Fprintf(os.Stderr, "%s %d/%d %-8s took %v, waited %v, set in %v\n", r, n+1, runs, m.name, o.took, o.waited, o.acted)
		}
	}
	return rows, nil
}
