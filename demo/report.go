package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SummaryFile is the name of the summary in the output directory.
const SummaryFile = "summary.json"

// report prints the summary and writes it and the plots.
func (r *run) report(ctx context.Context, m *measurement) error {
	s := r.summary(m)
	for _, sub := range r.subjects {
		for _, text := range sub.work.troubles {
			r.step("%s had trouble: %s", sub.name, text)
		}
	}
	path := filepath.Join(r.Out, SummaryFile)
	if err := writeJSON(path, s); err != nil {
		return err
	}
	plotErr := r.plot(ctx, m)
	fmt.Fprintln(r.Output)
	err := s.Write(r.Output)
	fmt.Fprintf(r.Output, "\nwritten to %s: %s, %s, %s\n\n", r.Out, SummaryFile, plotSVG, plotPNG)
	return errors.Join(err, plotErr)
}

func (r *run) summary(m *measurement) Summary {
	s := Summary{Accel: r.speed.accel, Seconds: m.end.Sub(m.begin).Seconds(), Seed: r.Seed, Cost: m.cost}
	items := arrived(r.Seed, m.from, m.to)
	for _, sub := range r.subjects {
		s.VMs = append(s.VMs, summarise(sub.name, sub.policy, &sub.meter, between(sub.before, sub.after), &sub.work, items))
	}
	return s
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}
