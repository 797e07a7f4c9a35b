package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// spread is how durations are distributed.
type spread struct{ p50, p99, max time.Duration }

func spreadOf(all []time.Duration) spread {
	if len(all) == 0 {
		return spread{}
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	return spread{at(0.5), at(0.99), at(1)}
}

// String writes the median, the 99th percentile and the largest.
func (s spread) String() string {
	return fmt.Sprintf("%s / %s / %s", brief(s.p50), brief(s.p99), brief(s.max))
}

func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// printResults writes a table in Markdown, a column for each size.
func printResults(w io.Writer, o options, all []result) {
	fmt.Fprintf(w, "%d cores for server and hosts together, %d VMs a host, a heartbeat every %v; durations are p50 / p99 / max\n\n", runtime.NumCPU(), o.vms, o.beat)
	row := func(name string, cell func(result) string) {
		cells := make([]string, len(all))
		for i, r := range all {
			cells[i] = cell(r)
		}
		fmt.Fprintf(w, "| %s | %s |\n", name, strings.Join(cells, " | "))
	}
	row("hosts", func(r result) string { return fmt.Sprint(r.hosts) })
	fmt.Fprintln(w, "|---"+strings.Repeat("|---", len(all))+"|")
	row("all register at once", func(r result) string { return brief(r.storm) })
	row("… server CPU", func(r result) string { return brief(r.stormCPU) })
	row("… writes to etcd", func(r result) string { return fmt.Sprint(r.stormWrites) })
	row("steady: heartbeats answered, 1/s", func(r result) string { return fmt.Sprintf("%.0f", r.beats) })
	row("… time of one", func(r result) string { return r.beatLatency.String() })
	row("… server CPU, cores", func(r result) string { return fmt.Sprintf("%.3f", r.steadyCPU) })
	row("… server CPU per 1,000 hosts, cores", func(r result) string { return fmt.Sprintf("%.3f", r.steadyCPU/float64(r.hosts)*1000) })
	row("… server memory, MiB", func(r result) string { return fmt.Sprint(r.steadyRSS >> 20) })
	row("… server memory per 1,000 hosts, MiB", func(r result) string { return fmt.Sprintf("%.0f", float64(r.steadyRSS>>20)/float64(r.hosts)*1000) })
	row("… writes to etcd, 1/s", func(r result) string { return fmt.Sprintf("%.2f", r.writes) })
	row("global change until a host has it", func(r result) string { return r.told.String() })
	row("… server CPU", func(r result) string { return brief(r.toldCPU) })
	row("server killed, away 3 s: from its start until a host is told again", func(r result) string { return r.back.String() })
}
