package events

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon"
)

// TestFigures measures what docs/pressure.md promises: make bench-events.
func TestFigures(t *testing.T) {
	if os.Getenv("GNOMON_BENCH") == "" {
		t.Skip("it measures; GNOMON_BENCH=1, or make bench-events, runs it")
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("load average at the start: %s", strings.TrimSpace(string(load)))
	t.Run("latency", latency)
	t.Run("cost", cost)
}

// latency measures from when an idle VM is told to compute until the broker
// knows, and from then until the limit is raised, and until the answer of the
// agent is back, which bounds the time until the agent knows.
func latency(t *testing.T) {
	runs := 60
	if n, err := strconv.Atoi(os.Getenv("GNOMON_BENCH_RUNS")); err == nil {
		runs = n
	}
	r := newRig(t, false, "--pressure", "auto")
	var told []time.Time
	for range runs {
		r.awaitIdle(t)
		told = append(told, r.compute(t, 60*time.Millisecond))
	}
	r.down(t)
	d := delays(r.recorded(t), told)
	t.Logf("%d runs; of these %d told urgently, %d limited anew, %d answered", runs, len(d.broker), len(d.limit), len(d.agent))
	report(t, "told to compute → urgent sample at the broker", d.broker)
	report(t, "urgent sample at the broker → new limit in force", d.limit)
	report(t, "urgent sample at the broker → answer of the agent back", d.agent)
}

// stages are how long each stage of serving an onset took, over many runs.
type stages struct{ broker, limit, agent []time.Duration }

// delays finds, for each time that the VM was told to compute, the first urgent
// sample after it, and what followed from that.
func delays(events []gnomon.Event, told []time.Time) (out stages) {
	for i, begun := range told {
		end := begun.Add(time.Second)
		if i+1 < len(told) && told[i+1].Before(end) {
			end = told[i+1]
		}
		var at, sample time.Time
		limited := false
		for _, e := range events {
			switch {
			case e.At.Before(begun) || e.At.After(end):
			case at.IsZero():
				if e.Sampled != nil && e.Sampled.Urgent {
					at, sample = e.At, e.Sampled.At
					out.broker = append(out.broker, at.Sub(begun))
				}
			case e.Proposed != nil && e.Proposed.At.Equal(sample):
				out.agent = append(out.agent, e.At.Sub(at))
			case e.Applied != nil && e.Applied.Resource == gnomon.CPU && !limited:
				limited = true
				out.limit = append(out.limit, e.At.Sub(at))
			}
		}
	}
	return out
}

func report(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	if len(took) == 0 {
		t.Errorf("%s: none", what)
		return
	}
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return took[min(int(q*float64(len(took))), len(took)-1)].Round(10 * time.Microsecond)
	}
	t.Logf("%-58s median %v, p90 %v, p99 %v, worst %v", what, at(.5), at(.9), at(.99), at(1))
}

// cost keeps the VM busy at its limit for a minute, and compares what the
// samples say with what libvirt says.
func cost(t *testing.T) {
	const span = time.Minute
	r := newRig(t, false, "--pressure", "auto")
	r.gnomon(t, "config", "set", "limits.ceiling=cpu=100m", "--vm", r.name)
	r.awaitIdle(t)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.compute(t, span+4*time.Second)
	}()
	time.Sleep(2 * time.Second) // let it settle: what is measured is steady
	from, progs := vcpuOf(t, r.name), programTime(t)
	time.Sleep(span)
	to, progsTo := vcpuOf(t, r.name), programTime(t)
	<-done
	r.down(t)
	var usage, demand, total float64
	for _, e := range r.recorded(t) {
		if s := e.Sampled; s != nil && !s.Urgent && s.At.After(from.at) && s.At.Before(to.at) {
			seconds := s.Interval.Seconds()
			usage += float64(s.Usage[gnomon.CPU]) * seconds
			demand += float64(s.Demand[gnomon.CPU]) * seconds
			total += seconds
		}
	}
	wall := to.at.Sub(from.at).Seconds()
	ran, waited := (to.time-from.time)/1e6/wall, (to.delay-from.delay)/1e6/wall
	t.Logf("usage: samples %.2f, libvirt %.2f millicores: %+.2f %%", usage/total, ran, 100*(usage/total/ran-1))
	t.Logf("demand: samples %.2f, libvirt %.2f millicores: %+.2f %%", demand/total, ran+waited, 100*(demand/total/(ran+waited)-1))
	t.Logf("programs in the kernel: %.4f %% of a core in %d runs/s, for all threads of this host",
		100*(progsTo.time-progs.time).Seconds()/wall, int(float64(progsTo.runs-progs.runs)/wall))
}

type vcpuTimes struct {
	at          time.Time
	time, delay float64 // nanoseconds
}

// vcpuOf reads libvirt's own counters.
func vcpuOf(t *testing.T, name string) (v vcpuTimes) {
	t.Helper()
	out := virsh(t, "domstats", "--vcpu", name)
	v.at = time.Now()
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, _ := strconv.ParseFloat(value, 64)
		switch key {
		case "vcpu.0.time":
			v.time = n
		case "vcpu.0.delay":
			v.delay = n
		}
	}
	return v
}

type programs struct {
	time time.Duration
	runs uint64
}

// programTime sums up what the daemon's programs cost since the kernel counts.
func programTime(t *testing.T) (sum programs) {
	t.Helper()
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return sum
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		info, err := p.Info()
		if err == nil && slices.Contains([]string{"on_switch", "on_wakeup", "on_exit", "on_reclaim", "on_bio", "on_packet"}, info.Name) {
			if st, err := p.Stats(); err == nil {
				sum.time += st.Runtime
				sum.runs += st.RunCount
			}
		}
		p.Close()
	}
}
