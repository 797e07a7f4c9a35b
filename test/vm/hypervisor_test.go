package vm

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// faultTest is one host with four guests, all taken in: a works all the time, and
// must not notice what befalls the others; b has no balloon; c and d are idle.
type faultTest struct {
	*wholeTest
	b, c, d *guest
}

// TestHypervisorFaults has the hypervisor's side fail in the middle of handovers,
// and checks that every VM is left no worse off.
func TestHypervisorFaults(t *testing.T) {
	s := newSystem(t, "-h", mine+"-*")
	f := &faultTest{wholeTest: &wholeTest{system: s, own: limits{cpu: 600, memory: guestMiB, disk: 8_000_000}}}
	f.a = bootGuest(t, s.dir, mine+"-a", "", "")
	f.b = f.startMute(t, mine+"-b")
	f.c = f.startBare(t, mine+"-c")
	f.d = f.startBare(t, mine+"-d")
	for _, g := range []*guest{f.a, f.b, f.c, f.d} {
		g.awaitReady(t)
	}
	f.a.work(t)
	f.wholeTest.own.set(t, f.a.name)
	f.daemon = s.up(t)
	f.ok(t, "config", "set", "overcommit=cpu=1000%", "scalingPolicy=fixed") // what each may have does not hang on the others
	for _, g := range []*guest{f.a, f.c, f.d} {
		within(t, bootLimit, g.name+" is served", func() error { return f.served(g.name) })
	}
	// The daemon itself changes no limit of the one that works.
	f.ok(t, "config", "set", "limits.floor=cpu=950m,memory=256MiB,disk=40MB/s", "limits.ceiling=cpu=950m,memory=256MiB,disk=40MB/s", "--vm", f.a.name)
	f.asRequested(t, f.a.name, guestMaxMiB)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a VM without a balloon", f.withoutBalloon},
		{"a limit changed by hand is reverted", f.reverted},
		{"a limit changed by hand is adopted", f.adopted},
		{"libvirtd does not answer", f.libvirtdStopped},
		{"the host has less memory than it promised", f.scarce},
		{"a VM is paused in mid-handover", f.paused},
		{"a VM migrates in mid-handover", f.migrates},
		{"a VM crashes in mid-handover", f.crashes},
		{"what is left has its own limits", f.leaves},
	} {
		begun := time.Now()
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
		t.Logf("%6.1fs  %s", time.Since(begun).Seconds(), step.name)
	}
}

// startBare starts a guest without a disk, which libvirt moves anywhere.
func (f *faultTest) startBare(t *testing.T, name string) *guest {
	t.Helper()
	g, definition := newGuest(t, f.dir, name, "", "", "")
	virsh(t, "create", definition)
	g.open(t)
	return g
}

func (f *faultTest) startMute(t *testing.T, name string) *guest {
	t.Helper()
	g, definition := newGuest(t, f.dir, name, "", "", "")
	text, err := os.ReadFile(definition)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?s)<memballoon.*</memballoon>`).ReplaceAll(text, []byte(`<memballoon model="none"/>`))
	if err := os.WriteFile(definition, text, 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "create", definition)
	g.open(t)
	return g
}

// explained returns what is missing for a VM's explanation to say a text.
func (f *faultTest) explained(vm, text string) error {
	r := f.run("vm", "explain", vm)
	if r.code != 0 || !strings.Contains(r.stdout, text) {
		return fmt.Errorf("vm explain does not say %q: %s%s", text, r.stdout, r.stderr)
	}
	return nil
}

// counted returns what the daemon has counted under a name, of all that have the
// labels, each as it writes them.
func (f *faultTest) counted(t *testing.T, name string, labels ...string) (sum float64) {
	t.Helper()
	res, err := http.Get("http://" + f.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
lines:
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series, of, _ := strings.Cut(key, "{"); series != name {
			continue
		} else {
			for _, label := range labels {
				if !strings.Contains(of, label) {
					continue lines
				}
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// overrides returns how many changes of CPU limits by somebody else are counted.
func (f *faultTest) overrides(t *testing.T) float64 {
	t.Helper()
	return f.counted(t, "gnomon_host_decisions_total", `kind="override"`, `resource="cpu"`)
}

// givenUp waits until a change of a resource's limit has failed that was under way
// when this was called.
func (f *faultTest) givenUp(t *testing.T, resource string) (wait func()) {
	t.Helper()
	failed := func() float64 {
		return f.counted(t, "gnomon_host_apply_seconds_count", `outcome="error"`, fmt.Sprintf("resource=%q", resource))
	}
	before := failed()
	return func() {
		t.Helper()
		within(t, settle, "the change is given up", func() error {
			if failed() == before {
				return errors.New("it is not")
			}
			return nil
		})
	}
}

func (f *faultTest) withoutBalloon(t *testing.T) {
	within(t, bootLimit, "it is taken in", func() error {
		return f.explained(f.b.name, "memory is not limited: neither a virtio balloon nor a virtio-mem device")
	})
	if r := f.run("vm", "request", f.b.name, "memory", "200MiB"); r.code == 0 && strings.HasPrefix(r.stdout, "granted") {
		t.Errorf("more memory is granted: %s", r.stdout)
	}
	// It has one vCPU, and no more than that comes of any request.
	if r := f.run("vm", "request", f.b.name, "cpu", "4"); !strings.Contains(r.stdout, "the ceiling is 1 core") {
		t.Errorf("four cores for one vCPU: %s%s", r.stdout, r.stderr)
	}
	f.ok(t, "config", "set", "hold=1s", "--vm", f.b.name)
	within(t, settle, "its CPU is limited", func() error {
		if got := cpuLimit(t, f.b.name); got < 0 || got > 1000 {
			return fmt.Errorf("%d millicores", got)
		}
		return nil
	})
	f.ok(t, "vm", "release", f.b.name)
	within(t, settle, "it has its own limit", func() error {
		if got := cpuLimit(t, f.b.name); got != -1 {
			return fmt.Errorf("%d millicores", got)
		}
		return nil
	})
}

// byHand has something set by hand and waits until it is noticed.
func (f *faultTest) byHand(t *testing.T, noticed string, set ...string) {
	t.Helper()
	virsh(t, set...)
	took := within(t, settle, "a change by hand is noticed", func() error { return f.explained(f.a.name, noticed) })
	t.Logf("noticed after %.1f s", took.Seconds())
}

func (f *faultTest) reverted(t *testing.T) {
	before := f.overrides(t)
	within(t, settle, "it has its CPU", func() error { return f.hasCPU(t, 950) })
	f.byHand(t, "Somebody else changed it from", "schedinfo", f.a.name, "--live", "--set", "vcpu_quota=5000")
	took := within(t, settle, "it is raised again", func() error { return f.hasCPU(t, 950) })
	t.Logf("raised again %.1f s after it was told", took.Seconds())
	if got := f.overrides(t); got <= before {
		t.Errorf("%.0f changes by somebody else are counted, before %.0f", got, before)
	}
	f.a.undisturbed(t)
}

func (f *faultTest) adopted(t *testing.T) {
	within(t, settle, "the disk is limited", func() error { return f.hasDisk(t, 40_000_000) })
	f.ok(t, "config", "set", "onOverride=adopt", "--vm", f.a.name)
	f.own.disk = 5_000_000
	f.byHand(t, "disk is not limited: somebody else set it to 5 MB/s, which was adopted",
		"blkdeviotune", f.a.name, "vda", "--live", "--total-bytes-sec", strconv.FormatInt(f.own.disk, 10))
	if r := f.run("vm", "request", f.a.name, "disk", "30MB/s"); strings.HasPrefix(r.stdout, "granted") {
		t.Errorf("more is granted: %s", r.stdout)
	}
	if err := f.hasDisk(t, f.own.disk); err != nil {
		t.Errorf("after it was set by hand to %d: %v", f.own.disk, err)
	}
	f.ok(t, "config", "unset", "onOverride", "--vm", f.a.name)
	within(t, settle, "it is limited again", func() error { return f.hasDisk(t, 40_000_000) })
}

// hasCPU returns what is missing for a to have that limit, in millicores.
func (f *faultTest) hasCPU(t *testing.T, want int64) error {
	t.Helper()
	if got := cpuLimit(t, f.a.name); got != want {
		return fmt.Errorf("its CPU limit is %d millicores", got)
	}
	return nil
}

// hasDisk is hasCPU for the disk, in bytes/s.
func (f *faultTest) hasDisk(t *testing.T, want int64) error {
	t.Helper()
	if got := limitsOf(t, f.a.name).disk; got != want {
		return fmt.Errorf("its disk's limit is %d bytes/s", got)
	}
	return nil
}

func (f *faultTest) libvirtdStopped(t *testing.T) {
	out, err := exec.Command("pgrep", "-o", "-x", "libvirtd").Output()
	if err != nil {
		t.Fatalf("find libvirtd: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	f.ok(t, "config", "set", "hold=5m", "--vm", f.d.name)
	givenUp := f.givenUp(t, "memory")
	goOn := func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	defer goOn()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	had := cpuLimit(t, f.a.name)
	f.request(t, f.d.name, "memory", "200MiB") // of which nobody hears
	within(t, time.Minute, "the daemon notices", func() error {
		st, err := f.status()
		if err == nil && st.GetHypervisor() == "connected" {
			err = errors.New("it counts as connected")
		}
		return err
	})
	givenUp()
	if got := cpuLimit(t, f.a.name); got != had {
		t.Errorf("the limit is %d meanwhile, before %d", got, had)
	}
	f.a.undisturbed(t)
	goOn()
	took := within(t, settle, "all is whole again", func() error {
		return errors.Join(f.whole(), f.served(f.a.name), f.fresh(f.a.name))
	})
	t.Logf("whole %.1f s after libvirtd went on", took.Seconds())
	f.asRequested(t, f.d.name, 200)
}

// scarce lowers what the host may promise while memory is being lent for a
// forecast.
func (f *faultTest) scarce(t *testing.T) {
	// A VM lends what it does not need of late, unless its own shadow asks for any.
	f.ok(t, "config", "set", "hold=90s", "shadow.enabled=false", "--vm", f.c.name)
	f.request(t, f.c.name, "memory", "220MiB")
	f.asRequested(t, f.c.name, 220)
	f.promise(t, 100, 8)
	within(t, time.Minute, "it is lent", func() error {
		r := f.run("vm", "request", f.d.name, "memory", "250MiB", "--ahead", "30s", "--lifetime", "5m") // partly granted at first
		if err := f.explained(f.c.name, "lent ahead of the need of"); err != nil {
			return fmt.Errorf("%s%s%w", r.stdout, r.stderr, err)
		}
		return nil
	})
	f.promise(t, 75, 0)
	within(t, settle, "nothing is reserved that is not there", func() error {
		st, err := f.status()
		if err != nil {
			return err
		}
		if reserved := st.GetReserved().GetMemoryBytes(); reserved > 0 {
			return fmt.Errorf("%d MiB of memory are reserved, %d free", reserved>>20, st.GetFree().GetMemoryBytes()>>20)
		}
		return nil
	})
	for g, floor := range map[*guest]int64{f.a: guestMaxMiB, f.c: guestMaxMiB / 2, f.d: guestMaxMiB / 2} {
		if got := memoryOf(t, g.name); got < floor {
			t.Errorf("%s is left %d MiB, which is below its floor of %d", g.name, got, floor)
		}
	}
	f.a.undisturbed(t)
	f.ok(t, "config", "unset", "capacity", "--host", hostName)
	f.ok(t, "vm", "release", f.c.name)
	within(t, settle, "a VM that gave has its own back", func() error {
		if got := memoryOf(t, f.c.name); got != guestMiB {
			return fmt.Errorf("%d MiB", got)
		}
		return nil
	})
	f.ok(t, "vm", "enroll", f.c.name)
	within(t, settle, "it is taken in again", func() error {
		_, err := f.vm(f.c.name)
		return err
	})
	if got := f.counted(t, "gnomon_host_broken_promises_total"); got > 0 {
		t.Errorf("%.0f promises were broken", got)
	}
}

// promise has the host promise that part of the memory that is allocated, in
// percent, and some MiB.
func (f *faultTest) promise(t *testing.T, percent, mib int64) {
	t.Helper()
	const plenty = 4096
	st := f.withCapacity(t, plenty)
	shadows := plenty - st.GetCapacity().GetMemoryBytes()>>20 // which come off it
	f.withCapacity(t, st.GetAllocated().GetMemoryBytes()>>20*percent/100+mib+shadows)
}

// withCapacity has the host have that much memory for VMs and shadows, and returns
// its state once that counts.
func (f *faultTest) withCapacity(t *testing.T, mib int64) *hostpb.StatusResponse {
	t.Helper()
	capacity := fmt.Sprintf("memory=%dMiB", mib)
	f.ok(t, "config", "set", "capacity="+capacity, "--host", hostName)
	within(t, settle, "the daemon knows", func() error {
		text, err := os.ReadFile(f.path("state", "host.json"))
		if err == nil && !strings.Contains(string(text), capacity) {
			err = errors.New("it does not")
		}
		return err
	})
	st, err := f.status()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// slowly has a guest hardly run, so that a handover of memory takes its time.
func (f *faultTest) slowly(t *testing.T, vm string) {
	t.Helper()
	f.ok(t, "config", "set", "limits.floor=cpu=20m", "limits.ceiling=cpu=20m", "hold=5m", "--vm", vm)
	within(t, settle, vm+" hardly runs", func() error {
		if got := cpuLimit(t, vm); got != 20 {
			return fmt.Errorf("%d millicores", got)
		}
		return nil
	})
}

// asRequested waits until a VM has the memory that was requested.
func (f *faultTest) asRequested(t *testing.T, vm string, mib int64) {
	t.Helper()
	within(t, 2*settle, fmt.Sprintf("%s has %d MiB", vm, mib), func() error {
		if got := memoryOf(t, vm); got < mib {
			return fmt.Errorf("%d MiB", got)
		}
		return nil
	})
}

func (f *faultTest) paused(t *testing.T) {
	f.slowly(t, f.d.name)
	had := memoryOf(t, f.d.name)
	givenUp := f.givenUp(t, "memory")
	f.request(t, f.d.name, "memory", "240MiB")
	virsh(t, "suspend", f.d.name)
	at := memoryOf(t, f.d.name)
	t.Logf("paused at %d MiB, on its way from %d to 240", at, had)
	if at < had {
		t.Errorf("it has %d MiB, and had %d", at, had)
	}
	within(t, settle, "the daemon knows", func() error {
		v, err := f.vm(f.d.name)
		if err == nil && v.GetState() != "paused" {
			err = fmt.Errorf("it is %s", v.GetState())
		}
		return err
	})
	if at < 239 {
		givenUp()
	}
	f.ok(t, "config", "unset", "limits.floor", "limits.ceiling", "--vm", f.d.name)
	virsh(t, "resume", f.d.name)
	f.asRequested(t, f.d.name, 240)
}

// migrates has another libvirt of this machine take a VM, too slowly, so that it
// is called off, and then in time.
func (f *faultTest) migrates(t *testing.T) {
	to := newNetwork(f.whose).newNode(f.whose, "n1")
	f.d.work(t) // so that it is never done
	move := func(more ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "virsh", append([]string{"-q", "-c", "qemu:///system", "migrate", "--live", f.d.name,
			"qemu+tcp://" + to.address + "/system", "--migrateuri", "tcp://" + to.address}, more...)...)
	}
	slow := move("--bandwidth", "1")
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, settle, "it is on its way", func() error {
		if out := virsh(t, "domjobinfo", f.d.name); !strings.Contains(out, "Data remaining") {
			return errors.New(out)
		}
		return nil
	})
	f.request(t, f.d.name, "memory", "250MiB")
	f.request(t, f.d.name, "cpu", "1")
	within(t, settle, "the host goes on with the others", func() error {
		return errors.Join(f.whole(), f.served(f.a.name), f.fresh(f.a.name))
	})
	if got := memoryOf(t, f.d.name); got < 240 {
		t.Errorf("it has %d MiB while it moves, and had 240", got)
	}
	virsh(t, "domjobabort", f.d.name)
	if err := slow.Wait(); err == nil {
		t.Error("it moved")
	}
	f.asRequested(t, f.d.name, 250)
	within(t, settle, "its CPU is as requested", func() error {
		if got := cpuLimit(t, f.d.name); got >= 0 && got < 1000 {
			return fmt.Errorf("%d millicores", got)
		}
		return nil
	})
	if out, err := move().CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v: %s", err, out)
	}
	f.ended(t, f.d.name)
	if state := to.virsh(t, "domstate", f.d.name); strings.TrimSpace(state) != "running" {
		t.Errorf("there it is %s", state)
	}
	to.virsh(t, "destroy", f.d.name)
}

// ended waits until a VM is not taken in any more, and checks that nothing of it
// is left.
func (f *faultTest) ended(t *testing.T, vm string) {
	t.Helper()
	within(t, settle, vm+" is no more, nor its shadow", func() error {
		if _, err := f.vm(vm); err == nil {
			return errors.New("it is taken in")
		}
		list, err := f.shadows()
		for _, sh := range list {
			if sh.GetVm() == vm {
				return fmt.Errorf("shadow %s is %s", sh.GetName(), sh.GetState())
			}
		}
		return err
	})
	within(t, recovery, "the book has what the VMs have", func() error {
		st, err := f.status()
		if err != nil {
			return err
		}
		all, err := f.vms()
		want := int64(0)
		for _, v := range all {
			want += v.GetResources()[1].GetAllocation()
		}
		if got := st.GetAllocated().GetMemoryBytes(); got != want {
			err = errors.Join(err, fmt.Errorf("%d MiB are allocated, and the VMs have %d", got>>20, want>>20))
		}
		return err
	})
	if got := f.counted(t, "gnomon_host_broken_promises_total"); got > 0 {
		t.Errorf("%.0f promises were broken", got)
	}
	f.a.undisturbed(t)
}

func (f *faultTest) crashes(t *testing.T) {
	f.slowly(t, f.c.name)
	f.request(t, f.c.name, "memory", "250MiB")
	if err := syscall.Kill(pidOf(t, f.c.name), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.ended(t, f.c.name)
}

func (f *faultTest) leaves(t *testing.T) {
	f.daemon.stop(t)
	f.awaitOwnLimits(t)
	if got := cpuLimit(t, f.b.name); got != -1 {
		t.Errorf("%s is limited to %d millicores", f.b.name, got)
	}
	if left, _ := filepath.Glob(f.path("run", "shadows", "*")); len(left) > 0 {
		t.Errorf("shadows are left: %v", left)
	}
	f.a.undisturbed(t)
}
