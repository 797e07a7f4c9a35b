package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are how the fleet is measured.
type options struct {
	binary  string
	sizes   []int
	vms     int
	beat    time.Duration // between a host's heartbeats
	steady  time.Duration // measured without anything happening
	changes int           // of the global configuration
	dir     string
	verbose bool
}

func main() {
	o := options{}
	sizes := flag.String("hosts", "100,1000,10000", "sizes of fleets to measure, one after the other")
	flag.StringVar(&o.binary, "gnomon", "bin/gnomon", "the program whose server is measured")
	flag.IntVar(&o.vms, "vms", 100, "VMs on each host")
	flag.DurationVar(&o.beat, "beat", 5*time.Second, "between a host's heartbeats; the daemon's own is 5s")
	flag.DurationVar(&o.steady, "steady", 20*time.Second, "how long the steady state is measured")
	flag.IntVar(&o.changes, "changes", 5, "changes of the global configuration")
	flag.StringVar(&o.dir, "dir", "", "folder for the server's data (default: a temporary one)")
	flag.BoolVar(&o.verbose, "v", false, "show the server's log")
	flag.Parse()
	for text := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fail(fmt.Errorf("--hosts %q: want numbers of hosts, such as 100,1000", *sizes))
		}
		o.sizes = append(o.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var all []result
	for _, n := range o.sizes {
		r, err := measure(ctx, o, n, os.Stderr)
		if err != nil {
			fail(fmt.Errorf("%d hosts: %w", n, err))
		}
		all = append(all, r)
	}
	printResults(os.Stdout, o, all)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "scale:", err)
	os.Exit(1)
}

// result is what was measured with one size of the fleet.
type result struct {
	hosts int

	storm       time.Duration // until every host was told its state and had reported
	stormCPU    time.Duration // of the server
	stormWrites int64         // to etcd

	beats       float64 // a second, as answered
	beatLatency spread
	steadyCPU   float64 // cores
	steadyRSS   int64   // bytes
	writes      float64 // to etcd, a second

	told    spread        // from a change of the global configuration to each host
	toldCPU time.Duration // of the server, for each change

	back spread // from the server's return to each host's next state
}

// measure runs a server and a fleet of n hosts through it all.
func measure(ctx context.Context, o options, n int, progress io.Writer) (result, error) {
	r := result{hosts: n}
	say := func(format string, args ...any) {
		fmt.Fprintf(progress, "scale: %d hosts: %s\n", n, fmt.Sprintf(format, args...))
	}
	s, err := newServer(o)
	if err != nil {
		return r, err
	}
	defer s.remove()
	if err := s.start(ctx); err != nil {
		return r, err
	}
	f := newFleet(o, s.url, n)
	defer f.stop()

	cpu, writes, began := s.cpu(), s.revision(ctx), time.Now()
	f.start(ctx)
	if err := f.wait(ctx, "all hosts to be told and to report", func(h *host) bool { return h.reported.Load() }); err != nil {
		return r, err
	}
	r.storm, r.stormCPU, r.stormWrites = time.Since(began), s.cpu()-cpu, s.revision(ctx)-writes
	say("registered in %v", r.storm.Round(time.Millisecond))

	pause(ctx, 5*time.Second)
	f.takeBeats()
	cpu, writes, began = s.cpu(), s.revision(ctx), time.Now()
	pause(ctx, o.steady)
	took := time.Since(began)
	latencies := f.takeBeats()
	r.beats, r.beatLatency = float64(len(latencies))/took.Seconds(), spreadOf(latencies)
	r.steadyCPU, r.steadyRSS = (s.cpu()-cpu).Seconds()/took.Seconds(), s.rss()
	r.writes = float64(s.revision(ctx)-writes) / took.Seconds()
	say("steady: %.0f heartbeats/s, %.2f cores, %d MiB", r.beats, r.steadyCPU, r.steadyRSS>>20)

	var told []time.Duration
	cpu = s.cpu()
	for i := range o.changes {
		delays, err := f.change(ctx, s, fmt.Sprintf("%ds", 11+i))
		if err != nil {
			return r, err
		}
		told = append(told, delays...)
		pause(ctx, time.Second)
	}
	r.told = spreadOf(told)
	r.toldCPU = max(0, s.cpu()-cpu-time.Duration(r.steadyCPU*float64(o.changes)*float64(time.Second))) / time.Duration(max(1, o.changes))
	say("a change of the configuration: %v", r.told)

	if r.back, err = f.outage(ctx, s, 3*time.Second); err != nil {
		return r, err
	}
	say("back after the server's return: %v", r.back)
	return r, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
