package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow/cell"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// needVM skips where no VM can be started, unless GNOMON_TEST_VM insists.
func needVM(t *testing.T) {
	t.Helper()
	if os.Getenv("GNOMON_TEST_VM") != "" {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("starting VMs needs root")
	}
	if _, err := os.Stat(qemu); err != nil {
		t.Skip("there is no QEMU: ", err)
	}
}

// testAppliance builds the agent and its appliance, once for all tests, unless
// GNOMON_TEST_APPLIANCE names one.
var testAppliance = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("GNOMON_TEST_APPLIANCE"); dir != "" {
		return dir, nil
	}
	ctx := context.Background()
	dir := filepath.Join("..", "build", "test-appliance")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "gnomon-agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "../cmd/gnomon-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build agent: %w: %s", err, out)
	}
	tree, err := appliance.FetchKernel(ctx, filepath.Join("..", "build", "kernel"), os.Stderr)
	if err != nil {
		return "", err
	}
	_, err = appliance.Build(ctx, appliance.Options{KernelTree: tree, Init: bin, Modules: Modules, Out: dir})
	return dir, err
})

// newLauncher returns a launcher of shadows under TCG in a directory of its own.
func newLauncher(t *testing.T) *Launcher {
	t.Helper()
	needVM(t)
	image, err := testAppliance()
	if err != nil {
		t.Fatal(err)
	}
	return launcherOf(t, image)
}

func launcherOf(t *testing.T, image string) *Launcher {
	t.Helper()
	l, err := NewLauncher(Options{
		Appliance: image, RunDir: shortDir(t), Accel: "tcg", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// shortDir returns a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (l *Launcher) startIn(t *testing.T, label string) Machine {
	t.Helper()
	// A machine that is busy with other things starts nothing quickly.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := l.Start(ctx, Spec{
		Name: Name(label, func(string) bool { return false }), For: hypervisor.Warm, Account: `a<"&b`,
		Size: config.Size{CPU: 500, Memory: 128 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s: %s", m.Name, l.at(m.Name).lastWords())
		}
		// The test's own context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := l.Stop(ctx, m); err != nil {
			t.Error(err)
		}
	})
	return m
}

func dial(t *testing.T, socket string) *Link {
	t.Helper()
	l, err := Dial(t.Context(), socket, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func welcomeFor(vm string, session uint64) *agentpb.Welcome {
	return &agentpb.Welcome{Vm: vm, Session: session, NowUnixNano: time.Now().UnixNano(), Settings: wire.SettingsTo(wire.Settings{
		MonitoringInterval: time.Second, PredictionHorizon: 5 * time.Second,
		Thresholds: gnomon.Resources{50, 16 << 20, 1e6, 1e6}, Model: "auto", Price: 100,
	})}
}

// await returns the first message that is wanted.
func await(t *testing.T, l *Link, what string, wanted func(*agentpb.ToHost) bool) *agentpb.ToHost {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case m, ok := <-l.Messages():
			if !ok {
				t.Fatalf("the link ended while waiting for %s: %v", what, l.Err())
			}
			if wanted(m) {
				return m
			}
		case <-limit:
			t.Fatalf("no %s", what)
		}
	}
}

// burst is a demand that alternates between calm and busy, 6 s each.
func burst(i int) gnomon.Sample {
	cpu, memory := int64(100), int64(200<<20)
	if i/6%2 == 1 {
		cpu, memory = 1500, 600<<20
	}
	return gnomon.Sample{
		At: time.Unix(1_800_000_000+int64(i), 0), Interval: time.Second,
		Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory),
		Usage: gnomon.Resources{cpu, memory}, Demand: gnomon.Resources{cpu, memory},
		Allocation: gnomon.Resources{2000, 1 << 30},
	}
}

// exchange pushes usage events one by one and returns how many of the proposals
// asked for something, and the slowest reply.
func exchange(t *testing.T, l *Link, n int) (requests int, slowest time.Duration) {
	t.Helper()
	for i := range n {
		sent := time.Now()
		l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{
			Seq: uint64(i + 1), Sample: burst(i), Ceiling: gnomon.Resources{4000, 2 << 30},
		})}})
		m := await(t, l, "proposal", func(m *agentpb.ToHost) bool { return m.GetProposal().GetSeq() == uint64(i+1) })
		slowest = max(slowest, time.Since(sent))
		if len(m.GetProposal().GetWants()) != 2 {
			t.Fatalf("proposal %v: want one part for CPU and one for memory", m)
		}
		for _, w := range m.GetProposal().GetWants() {
			if w.GetLevel() > 0 {
				requests++
				break
			}
		}
	}
	return requests, slowest
}

func TestShadow(t *testing.T) {
	h := newLauncher(t)
	h.Warm(t.Context())
	began := time.Now()
	m := h.startIn(t, "a")
	started := time.Since(began)
	l := dial(t, m.Socket)
	t.Logf("cloned after %v, hello after %v: %v", started, time.Since(began), l.Hello())

	machines, err := h.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(machines) != 1 || machines[0].ID != m.ID || machines[0].ShadowOf != hypervisor.Warm || machines[0].Account != `a<"&b` {
		t.Errorf("the launcher lists %+v", machines)
	}

	// Warm, then associated.
	l.Welcome(welcomeFor("", 1))
	l.Welcome(welcomeFor("vm-a", 1))
	if err := h.Associate(t.Context(), m, "7f1be9a2-2a7c-4b7b-8f0a-0123456789ab", "b"); err != nil {
		t.Error(err)
	}
	for range gnomon.NumResources {
		req := await(t, l, "history request", func(m *agentpb.ToHost) bool { return m.GetHistory() != nil }).GetHistory()
		past := make([]float64, 600)
		for i := range past {
			past[i] = float64(burst(i).Demand[req.GetResource()-1])
		}
		l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: &agentpb.History{
			Id: req.GetId(), Resource: req.GetResource(), StepNs: req.GetStepNs(), Demand: past,
		}}})
	}
	trained := time.Now()
	requests, slowest := exchange(t, l, 30)
	t.Logf("trained and 30 events answered in %v, slowest reply %v, %d with requests", time.Since(trained), slowest, requests)
	if requests == 0 {
		t.Error("30 events of a bursty series led to no request")
	}
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: 99}}})
	pong := await(t, l, "pong", func(m *agentpb.ToHost) bool { return m.GetPong().GetId() == 99 }).GetPong()
	t.Logf("agent: heap %d KiB, CPU %v", pong.GetHeapBytes()>>10, time.Duration(pong.GetCpuNs()))
	checkBudget(t, m, pong.GetHeapBytes())

	size, err := h.Resize(t.Context(), m, config.Size{CPU: 50, Memory: 96 << 20})
	if err != nil || size != (config.Size{CPU: 50, Memory: 96 << 20}) {
		t.Errorf("resized to %+v, %v", size, err)
	}

	// The host goes away and comes back: the models are kept, so no history is
	// asked for.
	l.Close()
	l = dial(t, m.Socket)
	l.Welcome(welcomeFor("vm-a", 2))
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{Seq: 100, Sample: burst(30), Ceiling: gnomon.Resources{4000, 2 << 30}})}})
	await(t, l, "proposal after reconnection", func(m *agentpb.ToHost) bool {
		if m.GetHistory() != nil {
			t.Error("the agent forgot its VM")
		}
		return m.GetProposal().GetSeq() == 100
	})

	memory, cpu, err := h.Cost(m)
	t.Logf("the shadow: PSS %d MiB, CPU %v, %v", memory>>20, cpu, err)
}

// checkBudget holds a clone that was trained to what its parts may take. They are
// its own: what it shares with others would depend on how many there are.
func checkBudget(t *testing.T, m Machine, heap int64) {
	t.Helper()
	pid, err := cell.Cell(m.ID).PID()
	if err != nil {
		t.Fatal(err)
	}
	p := memoryOf(t, pid)
	image, err := os.Stat(filepath.Join("..", "build", "test-appliance", "initramfs.cpio.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name      string
		got, most int64 // bytes
	}{
		{"the agent's heap", heap, 4 << 20},
		{"translated code", p.code, (cloneCache + 1) << 20},
		{"QEMU's own memory", p.private, 14 << 20},
		{"the image, packed", image.Size(), 3 << 20},
	} {
		t.Logf("%s: %.1f MiB", part.name, float64(part.got)/(1<<20))
		if part.got > part.most {
			t.Errorf("%s is %.1f MiB, more than its %d", part.name, float64(part.got)/(1<<20), part.most>>20)
		}
	}
}

// A daemon that restarts finds a shadow by its directory, and hears of its end.
func TestShadowOfAnEarlierDaemon(t *testing.T) {
	first := newLauncher(t)
	m := first.startIn(t, "a")
	l := dial(t, m.Socket)
	first.mu.Lock()
	first.stopping[m.ID] = true // it is no more
	first.mu.Unlock()

	h, err := NewLauncher(first.opts)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan gnomon.VMID, 1)
	if err := h.Watch(t.Context(), func(id gnomon.VMID) { ended <- id }); err != nil {
		t.Fatal(err)
	}
	machines, err := h.Machines(t.Context())
	if err != nil || len(machines) != 1 || machines[0].ID != m.ID {
		t.Fatalf("found %+v, %v", machines, err)
	}
	pid, err := cell.Cell(m.ID).PID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-ended:
		if id != m.ID {
			t.Errorf("%s ended, want %s", id, m.ID)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told of the shadow's end")
	}
	for range l.Messages() {
	}
	if err := l.Err(); err == nil || IsViolation(err) {
		t.Errorf("QEMU was killed; the link says %v", err)
	}
	if _, err := os.Stat(h.at(m.Name).dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
	if machines, err := h.Machines(t.Context()); err != nil || len(machines) != 0 {
		t.Errorf("it is still listed: %+v, %v", machines, err)
	}
}

// A daemon that is killed while it makes a template leaves a VM, which the next
// one ends.
func TestTemplateOfAnEarlierDaemon(t *testing.T) {
	needVM(t)
	for name, next := range map[string]func(l *Launcher) error{
		"a daemon": func(l *Launcher) error { l.Warm(t.Context()); return nil },
		"a demo":   func(l *Launcher) error { _, err := EndAll(t.Context(), l.opts.RunDir); return err },
	} {
		l := newLauncher(t)
		p, err := l.place(templateName)
		if err != nil {
			t.Fatal(err)
		}
		left := cell.Cell(newID())
		t.Cleanup(func() { _ = left.Kill(context.Background()) })
		if err := errors.Join(p.occupy(left), p.start(left, "/bin/sleep", []string{"1000"}, cell.Limits{CPU: 100, Memory: 64 << 20})); err != nil {
			t.Fatal(err)
		}
		if _, err := left.PID(); err != nil {
			t.Fatal(err)
		}
		if err := next(l); err != nil {
			t.Fatal(err)
		}
		if pid, err := left.PID(); err == nil {
			t.Errorf("what an earlier daemon left still runs, as %d, after %s", pid, name)
		}
		if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its directory is left: %v", err)
		}
	}
}

// What a daemon makes a template in ends with it, also where no other daemon ever
// works in its run directory.
func TestTemplateEndsWithItsDaemon(t *testing.T) {
	const runDir = "GNOMON_TEST_TEMPLATE_RUN_DIR"
	if dir := os.Getenv(runDir); dir != "" { // this is the daemon
		l, err := NewLauncher(Options{
			Appliance: filepath.Join("..", "build", "test-appliance"), RunDir: dir, Accel: "tcg", Log: slog.Default(),
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Warm(t.Context())
		return
	}
	l := newLauncher(t)
	daemon := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	daemon.Env = append(os.Environ(), runDir+"="+l.opts.RunDir)
	daemon.Stdout, daemon.Stderr = t.Output(), t.Output()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	var made cell.Cell
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runs := false; !runs; {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatal("no template was begun: ", err)
		}
		if b, err := os.ReadFile(l.at(templateName).occupant()); err == nil && len(b) > 0 {
			made = cell.Cell(b)
			pid, _ := made.PID()
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			runs = exe == qemu
		}
	}
	t.Cleanup(func() {
		if err := made.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := made.Ended(ctx); err != nil {
		t.Errorf("the daemon was killed, its template's process runs on: %v", err)
	}
}

// A template that does not work is told, and costs a shadow its quick start only.
func TestBrokenTemplate(t *testing.T) {
	l := newLauncher(t)
	l.Warm(t.Context())
	l.template.state = l.template.memory // no state of any machine
	m := l.startIn(t, "a")
	if l.template != nil {
		t.Error("the template is still there to be cloned")
	}
	if m.Size.Memory < guestMemory+overhead {
		t.Errorf("it boots in %d MiB", m.Size.Memory>>20)
	}
	dial(t, m.Socket)
}

// A daemon that ends while its template boots leaves nothing of it behind.
func TestCloseEndsTheMakingOfATemplate(t *testing.T) {
	l := newLauncher(t)
	warmed := make(chan struct{})
	go func() {
		defer close(warmed)
		l.Warm(context.Background())
	}()
	begun := filepath.Join(l.opts.RunDir, "template", "qmp.sock")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, err := os.Stat(begun); err != nil; _, err = os.Stat(begun) {
		select {
		case <-tick.C:
		case <-warmed:
			t.Fatal("no template was begun")
		}
	}
	l.Close()
	if left, err := os.ReadDir(l.opts.RunDir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	<-warmed
	if l.template != nil {
		t.Error("a template was made all the same")
	}
}

// The same agent as a process speaks the same protocol.
func TestShadowProcess(t *testing.T) {
	l := newLauncher(t)
	m, err := l.Start(t.Context(), Spec{
		Name: "gnomon-shadow-p", For: hypervisor.Warm, Runtime: config.RuntimeProcess,
		Size: config.Size{CPU: 500, Memory: MinMemory},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(context.Background(), m); err != nil {
			t.Error(err)
		}
	})
	link := dial(t, m.Socket)
	link.Welcome(welcomeFor("vm-a", 1))
	if requests, _ := exchange(t, link, 30); requests == 0 {
		t.Error("30 events of a bursty series led to no request")
	}
	if err := l.Suspend(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := l.Resume(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	link.Close()
	link = dial(t, m.Socket)
	link.Welcome(welcomeFor("vm-b", 2))
	exchange(t, link, 3)
}

func TestSuspendedShadowGoesOn(t *testing.T) {
	h := newLauncher(t)
	m := h.startIn(t, "a")
	l := dial(t, m.Socket)
	l.Welcome(welcomeFor("vm-a", 1))
	exchange(t, l, 3)
	l.Close()
	if err := h.Suspend(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if l, err := Dial(ctx, m.Socket, slog.New(slog.DiscardHandler)); !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			l.Close()
		}
		t.Errorf("a suspended shadow answered: %v", err)
	}
	if err := h.Resume(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	l = dial(t, m.Socket)
	l.Welcome(welcomeFor("vm-b", 2))
	exchange(t, l, 3)
}

func TestBootProbe(t *testing.T) {
	needVM(t)
	image, err := testAppliance()
	if err != nil {
		t.Fatal(err)
	}
	took, err := tryBoot(t.Context(), image, "tcg", time.Minute)
	t.Logf("a guest answered after %v", took)
	if err != nil {
		t.Error(err)
	}
	if _, err := tryBoot(t.Context(), image, "tcg", 300*time.Millisecond); err == nil {
		t.Error("a guest answered within 300 ms of a cold boot")
	}
	if _, err := tryBoot(t.Context(), image, "warp", time.Minute); err == nil {
		t.Error("an unknown accelerator worked")
	} else {
		t.Log(err)
	}
	if _, err := os.Stat(kvmDevice); err != nil {
		if accel, why := ProbeAccel(t.Context(), image, time.Minute); accel != "tcg" || why == "" {
			t.Errorf("without %s: %q because %q", kvmDevice, accel, why)
		}
	}
}
