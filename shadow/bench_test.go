package shadow

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow/cell"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// TestFleet measures many shadows that forecast once a second, of either
// runtime: `make bench-shadow`. GNOMON_BENCH_SHADOWS says how many.
func TestFleet(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("GNOMON_BENCH_SHADOWS"))
	if err != nil {
		t.Skip("a benchmark: set GNOMON_BENCH_SHADOWS to how many shadows")
	}
	l := newLauncher(t)
	began := time.Now()
	l.Warm(t.Context())
	fmt.Printf("%d shadows; template made in %v\n", n, time.Since(began).Round(10*time.Millisecond))
	for _, runtime := range []config.Runtime{config.RuntimeVM, config.RuntimeProcess} {
		measure(t, l, runtime, n)
	}
}

type fleetShadow struct {
	Machine
	link  *Link
	first time.Duration // from the start to the first proposal
	seq   uint64
}

func measure(t *testing.T, l *Launcher, runtime config.Runtime, n int) {
	var fleet []*fleetShadow
	defer func() {
		for _, s := range fleet {
			s.link.Close()
			if err := l.Stop(context.Background(), s.Machine); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range n {
		fleet = append(fleet, startOne(t, l, runtime, i))
	}
	firsts := make([]time.Duration, 0, n)
	for _, s := range fleet {
		firsts = append(firsts, s.first)
	}
	slices.Sort(firsts)

	// A while to warm up, then a while that counts.
	const warm, counted = 15, 30
	run1Hz(t, fleet, warm)
	before, began := totalCPU(t, l, fleet), time.Now()
	answers := run1Hz(t, fleet, counted)
	took := time.Since(began)
	cpu := float64(totalCPU(t, l, fleet)-before) / float64(took) / float64(n) * 100
	slices.Sort(answers)

	var sum parts
	var heap int64
	for _, s := range fleet {
		pid, err := cell.Cell(s.ID).PID()
		if err != nil {
			t.Fatal(err)
		}
		sum.add(memoryOf(t, pid))
		s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: 77}}})
		heap += await(t, s.link, "pong", func(m *agentpb.ToHost) bool { return m.GetPong().GetId() == 77 }).GetPong().GetHeapBytes()
	}
	mib := func(b int64) float64 { return float64(b) / float64(n) / (1 << 20) }
	fmt.Printf("%-8s start to first request answered: median %v, p90 %v\n", runtime, ms(firsts[n/2]), ms(firsts[n*9/10]))
	fmt.Printf("%-8s event to answer at 1 Hz: median %v, p99 %v\n", runtime, ms(answers[len(answers)/2]), ms(answers[len(answers)*99/100]))
	fmt.Printf("%-8s CPU of each: %.2f %% of a core\n", runtime, cpu)
	fmt.Printf("%-8s memory of each: %.1f MiB proportional: guest %.1f (agent's heap %.1f), translated code %.1f, private rest %.1f, files %.1f\n",
		runtime, mib(sum.total()), mib(sum.guest), mib(heap), mib(sum.code), mib(sum.private), mib(sum.files))
}

func ms(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// startOne starts a shadow and has it answer one event.
func startOne(t *testing.T, l *Launcher, runtime config.Runtime, i int) *fleetShadow {
	began := time.Now()
	m, err := l.Start(t.Context(), Spec{
		Name: fmt.Sprintf("gnomon-shadow-bench-%d-%d", os.Getpid(), i), For: hypervisor.Warm, Runtime: runtime,
		Size: config.Size{CPU: 500, Memory: 128 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &fleetShadow{Machine: m, link: dial(t, m.Socket)}
	s.link.Welcome(welcomeFor(fmt.Sprintf("vm-%d", i), 1))
	s.answer(t)
	s.first = time.Since(began)
	if _, err := l.Resize(t.Context(), m, config.Size{CPU: 50, Memory: 96 << 20}); err != nil {
		t.Fatal(err)
	}
	return s
}

// answer sends the next event and waits for the proposal.
func (s *fleetShadow) answer(t *testing.T) {
	s.send()
	await(t, s.link, "proposal", func(m *agentpb.ToHost) bool { return m.GetProposal().GetSeq() == s.seq })
}

func (s *fleetShadow) send() {
	s.seq++
	s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{
		Seq: s.seq, Sample: burst(int(s.seq)), Ceiling: gnomon.Resources{4000, 2 << 30},
	})}})
}

// run1Hz has every shadow answer an event a second, spread over the second, and
// returns how long the answers took.
func run1Hz(t *testing.T, fleet []*fleetShadow, seconds int) (answers []time.Duration) {
	pace := time.NewTicker(time.Second / time.Duration(len(fleet)))
	defer pace.Stop()
	for range seconds {
		for _, s := range fleet {
			<-pace.C
			began := time.Now()
			s.answer(t)
			answers = append(answers, time.Since(began))
		}
	}
	return answers
}

func totalCPU(t *testing.T, l *Launcher, fleet []*fleetShadow) (sum time.Duration) {
	for _, s := range fleet {
		_, cpu, err := l.Cost(s.Machine)
		if err != nil {
			t.Fatal(err)
		}
		sum += cpu
	}
	return sum
}

// parts are what a process has in memory, proportionally, in bytes.
type parts struct{ guest, code, private, files int64 }

func (p *parts) add(q parts) {
	p.guest, p.code, p.private, p.files = p.guest+q.guest, p.code+q.code, p.private+q.private, p.files+q.files
}

func (p parts) total() int64 { return p.guest + p.code + p.private + p.files }

// memoryOf sorts a process's mappings by what they are.
func memoryOf(t *testing.T, pid int) (p parts) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var to *int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case fields[0] == "Pss:":
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			*to += kib << 10
		case !strings.HasSuffix(fields[0], ":"): // the head of a mapping
			path := ""
			if len(fields) > 5 {
				path = fields[5]
			}
			switch {
			case strings.HasPrefix(path, "/memfd:gnomon"):
				to = &p.guest
			case path == "" && fields[1] == "rwxp":
				to = &p.code
			case strings.HasPrefix(path, "/"):
				to = &p.files
			default:
				to = &p.private
			}
		}
	}
	return p
}
