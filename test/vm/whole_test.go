package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// whole is one host with two guests: a is selected by name, b belongs to an
// account and is enrolled by hand. The steps are run in order, since guests take
// their time to boot.
type wholeTest struct {
	*system
	a, b    *guest
	account string
	own     limits // of a, before gnomon
	daemon  *process
	server  *process
}

func TestWholeSystem(t *testing.T) {
	s := newSystem(t, "-w", mine+"-a*")
	w := &wholeTest{system: s, account: mine + "-acme", own: limits{cpu: 600, memory: guestMiB, disk: 8_000_000}}
	if err := os.Mkdir(s.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, s.path("state"))
	w.a = bootGuest(t, s.dir, mine+"-a", "", fmt.Sprintf("gnv%dt", os.Getpid()))
	w.b = bootGuest(t, s.dir, mine+"-b", w.account, "")
	w.a.awaitReady(t)
	w.b.awaitReady(t)
	w.own.set(t, w.a.name)
	w.daemon = s.up(t)

	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a VM is taken in and gets a shadow", w.takenIn},
		{"the shadow is a VM of its own, confined", w.confined},
		{"the history holds everything", w.history},
		{"requests move the real limits", w.requests},
		{"a change of configuration takes effect within two intervals", w.configuration},
		{"a shadow is suspended and resumed", w.suspendResume},
		{"an account has a warm shadow, which its VM takes", w.warm},
		{"a full disk is told and changes nothing", w.fullDisk},
		{"an account's quota bounds what its VM has ahead", w.quota},
		{"a VM is released and enrolled again", w.releaseEnroll},
		{"a VM's end terminates its shadow, and its account goes", w.termination},
		{"kill -9 of the shadow", w.shadowKilled},
		{"kill -9 of the daemon, which returns at once", w.daemonKilled},
		{"kill -9 of the daemon, which stays away", w.daemonAway},
		{"a clean stop that keeps the limits", w.keep},
		{"server and host apart, with a wiped history", w.apart},
		{"a second daemon is refused", w.second},
		{"kill -9 of the server", w.serverKilled},
		{"kill -9 of libvirtd", w.libvirtdKilled},
		{"a clean stop gives limits back and leaves nothing", w.stop},
	} {
		begun := time.Now()
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
		t.Logf("%6.1fs  %s", time.Since(begun).Seconds(), step.name)
	}
}

// mountSmall mounts a file system that is soon full.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill fills a small file system up and returns what empties it again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{4096, 1} {
		for chunk := make([]byte, size); ; {
			if _, err := f.Write(chunk); err != nil {
				break
			}
		}
	}
	return func() { _ = os.Remove(path) }
}

type vmView struct {
	ID        string
	Name      string
	Account   string
	Enrolled  bool
	State     string
	Policy    string
	Shadow    string
	Resources []struct {
		Resource   string
		Limited    bool
		Allocation int64 `json:",string"`
		Ceiling    int64 `json:",string"`
		Model      string
	}
}

type shadowView struct {
	Name, ID, VM, Account, State string
	Connected                    bool
	CPULimit                     int64 `json:"cpu_limit_millicores,string"`
	Restarts                     int
}

func (w *wholeTest) takenIn(t *testing.T) {
	took := within(t, bootLimit, "the shadow's agent forecasts", func() error { return w.served(w.a.name) })
	t.Logf("served by its agent %.1f s after the daemon was ready", took.Seconds())

	if list := w.ok(t, "vm", "ls"); !strings.Contains(list, w.a.name) || strings.Contains(list, w.b.name) {
		t.Errorf("vm ls: want %s alone:\n%s", w.a.name, list)
	}
	all := get[[]vmView](t, w.system, "vm", "ls", "--all")
	for _, g := range []*guest{w.a, w.b} {
		found := false
		for _, v := range all {
			found = found || v.ID == g.id && v.Name == g.name && v.Enrolled == (g == w.a)
		}
		if !found {
			t.Errorf("vm ls --all does not list %s as it is: %+v", g.name, all)
		}
	}
	v := get[vmView](t, w.system, "vm", "show", w.a.name)
	if v.ID != w.a.id || v.State != "running" || v.Policy != "shadow" || v.Shadow == "" || len(v.Resources) != 4 {
		t.Errorf("vm show: %+v", v)
	}
	shadows := get[[]shadowView](t, w.system, "shadow", "ls")
	if len(shadows) != 1 || shadows[0].Name != v.Shadow || shadows[0].VM != w.a.name || !shadows[0].Connected {
		t.Errorf("shadow ls: want %s of %s alone: %+v", v.Shadow, w.a.name, shadows)
	}
	if sh := get[shadowView](t, w.system, "shadow", "show", v.Shadow); sh != shadows[0] {
		t.Errorf("shadow show: %+v, and in the list %+v", sh, shadows[0])
	}
	if top := w.ok(t, "top", "--once"); !strings.Contains(top, w.a.name) {
		t.Errorf("top does not show the VM:\n%s", top)
	}
	explain := w.ok(t, "vm", "explain", w.a.name)
	for _, want := range []string{"cpu: it uses", "memory: it uses", "Foreseen over 5s"} {
		if !strings.Contains(explain, want) {
			t.Errorf("vm explain does not say %q:\n%s", want, explain)
		}
	}
}

// confined checks how the shadow's QEMU runs, from outside.
func (w *wholeTest) confined(t *testing.T) {
	sh, err := w.shadowOf(w.a.name)
	if err != nil {
		t.Fatal(err)
	}
	pid := pidOf(t, sh.GetName())
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := "-sandbox\x00on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"; !strings.Contains(string(cmdline), want) {
		t.Error("QEMU's sandbox is not on")
	}
	for _, not := range []string{"netdev", "drive", "blockdev", "vfio", "fsdev"} {
		if strings.Contains(string(cmdline), not) {
			t.Errorf("the shadow has a %s", not)
		}
	}
	status, active := processStatus(t, pid), processStatus(t, pidOf(t, w.a.name))
	if uids := strings.Fields(status["Uid"]); len(slices.Compact(uids)) != 1 || uids[0] == "0" || status["Uid"] == active["Uid"] {
		t.Errorf("the shadow runs as %q, its VM as %q: want a user of its own", status["Uid"], active["Uid"])
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	hosts, err2 := os.Readlink("/proc/self/ns/net")
	if err := errors.Join(err, err2); err != nil || own == hosts {
		t.Errorf("the shadow's network is %s, the host's %s (%v)", own, hosts, err)
	}
	if status["Seccomp"] != "2" || status["NoNewPrivs"] != "1" || strings.Trim(status["CapEff"], "0") != "" {
		t.Errorf("Seccomp %s, CapEff %s: want a filter, no capability and none to come", status["Seccomp"], status["CapEff"])
	}
	if group := controlGroup(t, pid); !strings.HasSuffix(group, "/gnomon/"+sh.GetId()) {
		t.Errorf("the shadow is in %s: want a control group of its own", group)
	}
	within(t, recovery, "the CPU limit is the one that is told", func() error {
		sh, err := w.shadowOf(w.a.name)
		if err != nil {
			return err
		}
		if got, want := shadowLimit(t, sh.GetId()), sh.GetCpuLimitMillicores(); got != want {
			return fmt.Errorf("%d millicores, and %d are told", got, want)
		}
		return nil
	})
}

func processStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		out[key] = strings.TrimSpace(value)
	}
	return out
}

func (w *wholeTest) history(t *testing.T) {
	vm := fmt.Sprintf(`{vm=%q,vm_id=%q,host=%q}`, w.a.name, w.a.id, hostName)
	for _, series := range []string{
		"gnomon_vm_cpu_usage_cores" + vm, "gnomon_vm_cpu_demand_cores" + vm,
		"gnomon_vm_cpu_allocation_cores" + vm, "gnomon_vm_memory_usage_bytes" + vm,
		fmt.Sprintf(`gnomon_vm_cpu_forecast_cores{vm=%q,quantile="high"}`, w.a.name),
		fmt.Sprintf(`gnomon_vm_memory_forecast_bytes{vm=%q,quantile="median"}`, w.a.name),
		fmt.Sprintf(`count(count_over_time(gnomon_decision{vm=%q}[5m])) > 0`, w.a.name),
		fmt.Sprintf(`gnomon_host_cpu_capacity_cores{host=%q}`, hostName),
	} {
		within(t, settle, "a point of "+series, func() error {
			_, err := w.query(series)
			return err
		})
	}
	memory, err := w.query("gnomon_vm_memory_usage_bytes" + vm)
	if err != nil || memory < 10<<20 || memory > guestMaxMiB<<20 {
		t.Errorf("the history says that the guest uses %.0f bytes of its %d MiB (%v)", memory, guestMaxMiB, err)
	}
	within(t, 10*time.Second, "usage arrives as it is measured", func() error { return w.fresh(w.a.name) })
	if out := w.ok(t, "history", "query", `gnomon_vm_cpu_usage_cores{vm="`+w.a.name+`"}`); !strings.Contains(out, w.a.name) {
		t.Errorf("history query prints %q", out)
	}
}

func (w *wholeTest) requests(t *testing.T) {
	// A VM's allocation stays while its demand is this fresh.
	w.ok(t, "config", "set", "hold=5m", "limits.ceiling=cpu=950m,disk=40MB/s,network=40MB/s", "--vm", w.a.name)
	w.awaitCeiling(t, 950)
	// A resource that had none is limited from the next sample on.
	within(t, 2*time.Second, "the disk can be limited", func() error {
		v, err := w.vm(w.a.name)
		if err == nil && (!v.GetResources()[2].GetLimited() || v.GetResources()[2].GetAllocation() == 0) {
			err = fmt.Errorf("%v", v.GetResources()[2])
		}
		return err
	})
	w.request(t, w.a.name, "cpu", "900m")
	w.request(t, w.a.name, "memory", "224MiB")
	w.request(t, w.a.name, "disk", "20MB/s")
	want := limits{cpu: 900, memory: 224, disk: 20_000_000}
	within(t, settle, "the limits are as requested", func() error {
		if got := limitsOf(t, w.a.name); got.cpu < want.cpu || got.memory < want.memory || got.disk < want.disk {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	w.ok(t, "config", "set", "disk.operationSize=16KiB", "--vm", w.a.name)
	within(t, settle, "operations are limited as bytes are", func() error {
		if got := limitsOf(t, w.a.name); got.operations == 0 || got.operations != got.disk/(16<<10) {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	ahead := get[struct {
		Verdict, Reason string
		Got             int64
	}](t, w.system, "vm", "request", w.a.name, "network", "30MB/s", "--ahead", "5s", "--lifetime", "30s")
	if ahead.Verdict != "granted" || ahead.Got != 30_000_000 {
		t.Errorf("a pre-allocation: %+v", ahead)
	}
	over := w.run("vm", "request", w.a.name, "cpu", "5")
	if over.code == 0 && !strings.HasPrefix(over.stdout, "partial") || over.stdout == "" {
		t.Errorf("a request above the ceiling: exit code %d, %s%s", over.code, over.stdout, over.stderr)
	}
	if r := w.run("vm", "request", w.b.name, "cpu", "1"); r.code != 2 || !strings.Contains(r.stderr, "not taken in") {
		t.Errorf("a request for a VM that is not taken in: exit code %d, %s", r.code, r.stderr)
	}
}

// request asks for a level until it is granted: one that comes while a change is
// under way is denied at first.
func (w *wholeTest) request(t *testing.T, vm, resource, level string) {
	t.Helper()
	within(t, settle, "a request for "+level, func() error {
		if r := w.run("vm", "request", vm, resource, level); r.code != 0 || !strings.HasPrefix(r.stdout, "granted") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
}

func (w *wholeTest) awaitCeiling(t *testing.T, millicores int64) {
	t.Helper()
	took := within(t, 2*time.Second, "the new ceiling counts within two intervals", func() error {
		v, err := w.vm(w.a.name)
		if err != nil {
			return err
		}
		if got := v.GetResources()[0].GetCeiling(); got != millicores {
			return fmt.Errorf("the ceiling is %dm", got)
		}
		return nil
	})
	t.Logf("in effect %v after the command", took.Round(time.Millisecond))
}

func (w *wholeTest) configuration(t *testing.T) {
	w.ok(t, "config", "set", "limits.ceiling=cpu=800m,disk=40MB/s,network=40MB/s", "--vm", w.a.name)
	w.awaitCeiling(t, 800)
	within(t, 2*time.Second, "what is above the new ceiling is taken back", func() error {
		if got := limitsOf(t, w.a.name).cpu; got > 800 {
			return fmt.Errorf("the CPU limit is %d", got)
		}
		return nil
	})
	if got := strings.TrimSpace(w.ok(t, "config", "get", "limits.ceiling", "--vm", w.a.name)); !strings.HasPrefix(got, "cpu=800m") {
		t.Errorf("config get: %q", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := w.host.SubscribeUsage(ctx, connect.NewRequest(&hostpb.SubscribeUsageRequest{Vm: w.a.name}))
	if err != nil {
		t.Fatal(err)
	}
	w.ok(t, "config", "set", "monitoringInterval=200ms", "--vm", w.a.name)
	begun := time.Now()
	for stream.Receive() && time.Duration(stream.Msg().GetIntervalNs()) > 400*time.Millisecond {
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the new interval took %v", took)
	}
	w.ok(t, "config", "unset", "monitoringInterval", "--vm", w.a.name)

	// A shadow is scaled by its VM's policy.
	w.ok(t, "config", "set", "scalingPolicy=fixed", "shadow.baseResources=cpu=320m,memory=112MiB", "--vm", w.a.name)
	sh, err := w.shadowOf(w.a.name)
	if err != nil {
		t.Fatal(err)
	}
	within(t, recovery, "the shadow has its base", func() error {
		if got := shadowLimit(t, sh.GetId()); got != 320 {
			return fmt.Errorf("its CPU limit is %d", got)
		}
		return nil
	})
}

func (w *wholeTest) suspendResume(t *testing.T) {
	sh, err := w.shadowOf(w.a.name)
	if err != nil {
		t.Fatal(err)
	}
	w.ok(t, "shadow", "suspend", sh.GetName())
	within(t, settle, "the shadow is paused", w.noted(sh.GetName(), "paused", isPaused))
	if got := get[shadowView](t, w.system, "shadow", "show", sh.GetName()); got.State != "suspended" || got.Connected {
		t.Errorf("shadow show: %+v", got)
	}
	if err := w.fresh(w.a.name); err != nil {
		t.Errorf("without its shadow the VM is still watched: %v", err)
	}
	w.ok(t, "shadow", "resume", sh.GetName())
	within(t, recovery, "the agent is back", func() error { return w.served(w.a.name) })
	if r := w.run("shadow", "suspend", "no-such"); r.code != 3 || !strings.Contains(r.stderr, "no-such") {
		t.Errorf("an unknown shadow: exit code %d, %s", r.code, r.stderr)
	}
}

func pidsOf(t *testing.T, names ...string) string {
	t.Helper()
	var pids []string
	for _, name := range names {
		pids = append(pids, strconv.Itoa(pidOf(t, name)))
	}
	return strings.Join(pids, " ")
}
