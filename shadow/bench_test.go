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
	"github.com/gnomon-vm/gnomon/trace"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// past is how many samples of history an agent is trained from: as many as it asks
// for at an interval of a second, less what is left to push.
const past = 500

// TestFleet measures many shadows that forecast once a second, of either
// runtime: `make bench-shadow`. GNOMON_BENCH_SHADOWS says how many. Each follows
// all four resources of a recorded VM, and has its past.
func TestFleet(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("GNOMON_BENCH_SHADOWS"))
	if err != nil {
		t.Skip("a benchmark: set GNOMON_BENCH_SHADOWS to how many shadows")
	}
	l := newLauncher(t)
	began := time.Now()
	l.Warm(t.Context())
	fmt.Printf("%d shadows; template made in %v\n", n, time.Since(began).Round(10*time.Millisecond))
	recorded := recordings(t)
	for _, runtime := range []config.Runtime{config.RuntimeVM, config.RuntimeProcess} {
		measure(t, l, runtime, n, recorded)
	}
}

// recordings returns what VMs used, by the second.
func recordings(t *testing.T) (all [][]gnomon.Resources) {
	files, err := trace.FindFiles("../traces/debian-1s")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tr, err := trace.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := make([]gnomon.Resources, len(tr.Times))
		for r, c := range map[gnomon.Resource]struct {
			column string
			unit   float64
		}{
			gnomon.CPU: {"cpu_cores", 1000}, gnomon.Memory: {"mem_used_bytes", 1},
			gnomon.Disk: {"disk_bytes_s", 1}, gnomon.Network: {"net_bytes_s", 1},
		} {
			for i, v := range tr.Column(c.column) {
				used[i][r] = int64(v * c.unit)
			}
		}
		all = append(all, used)
	}
	return all
}

type fleetShadow struct {
	Machine
	link  *Link
	first time.Duration // from the start to the first proposal
	used  []gnomon.Resources
	seq   uint64
	asked []*agentpb.HistoryRequest
}

func measure(t *testing.T, l *Launcher, runtime config.Runtime, n int, recorded [][]gnomon.Resources) {
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
		fleet = append(fleet, startOne(t, l, runtime, i, recorded[i%len(recorded)]))
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
		heap += s.ping(t).GetHeapBytes()
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
func startOne(t *testing.T, l *Launcher, runtime config.Runtime, i int, used []gnomon.Resources) *fleetShadow {
	began := time.Now()
	m, err := l.Start(t.Context(), Spec{
		Name: fmt.Sprintf("gnomon-shadow-bench-%d-%d", os.Getpid(), i), For: hypervisor.Warm, Runtime: runtime,
		Size: config.Size{CPU: 500, Memory: 128 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &fleetShadow{Machine: m, link: dial(t, m.Socket), used: used, seq: past - 1}
	s.link.Welcome(welcomeFor(fmt.Sprintf("vm-%d", i), 1))
	s.answer(t)
	s.first = time.Since(began)
	s.train(t)
	if _, err := l.Resize(t.Context(), m, config.Size{CPU: 50, Memory: 96 << 20}); err != nil {
		t.Fatal(err)
	}
	return s
}

// train answers what the agent asked for when it was told of its VM, and waits
// until it has learned all of it.
func (s *fleetShadow) train(t *testing.T) {
	for _, req := range s.asked {
		r, err := wire.ResourceFrom(req.GetResource())
		if err != nil {
			t.Fatal(err)
		}
		demand := make([]float64, past)
		for i := range demand {
			demand[i] = float64(s.used[i][r])
		}
		s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: &agentpb.History{
			Id: req.GetId(), Resource: req.GetResource(), StepNs: req.GetStepNs(), Demand: demand,
		}}})
	}
	s.ping(t)
}

// ping waits until the agent has done all it was told, and returns its answer.
func (s *fleetShadow) ping(t *testing.T) *agentpb.Pong {
	const id = 77
	s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: id}}})
	return await(t, s.link, "pong", func(m *agentpb.ToHost) bool { return m.GetPong().GetId() == id }).GetPong()
}

// answer sends the next event and waits for the proposal.
func (s *fleetShadow) answer(t *testing.T) {
	s.send()
	await(t, s.link, "proposal", func(m *agentpb.ToHost) bool {
		if h := m.GetHistory(); h != nil {
			s.asked = append(s.asked, h)
		}
		return m.GetProposal().GetSeq() == s.seq
	})
}

func (s *fleetShadow) send() {
	s.seq++
	used := s.used[int(s.seq)%len(s.used)]
	s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{
		Seq: s.seq, Ceiling: gnomon.Resources{4000, 2 << 30, 1 << 30, 1 << 30},
		Sample: gnomon.Sample{
			At: time.Unix(1_800_000_000+int64(s.seq), 0), Interval: time.Second, Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network),
			Usage: used, Demand: used, Allocation: gnomon.Resources{2000, 1 << 30, 1 << 28, 1 << 28},
		},
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
