package rig

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
)

// Main reads the flags and runs a benchmark until its end or Ctrl-C. An error ends
// the program.
func Main(name string, run func(context.Context) error) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// Counts is a flag: numbers of VMs to measure with, each 1 or more. An empty one
// is none.
type Counts []int

// String implements flag.Value.
func (c *Counts) String() string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint([]int(*c)), "[]"), " ", ",")
}

// Set implements flag.Value.
func (c *Counts) Set(text string) error {
	*c = nil
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return fmt.Errorf("%q: want numbers of 1 or more, as 1,10,50", part)
		}
		*c = append(*c, n)
	}
	return nil
}

// WriteJSON writes figures to a file; no name is none.
func WriteJSON(name string, figures any) error {
	if name == "" {
		return nil
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}
