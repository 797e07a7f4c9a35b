package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (w *wholeTest) shadowKilled(t *testing.T) {
	w.a.work(t)
	sh, err := w.shadowOf(w.a.name)
	if err != nil {
		t.Fatal(err)
	}
	killed := pidOf(t, sh.GetName())
	within(t, stateLimit, "the host keeps what its agent learned", func() error {
		_, err := os.Stat(w.path("state", "agents", "vm-"+w.a.id+".state"))
		return err
	})
	resumed := w.resumed(t)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	replaced := within(t, recovery, "another shadow boots", func() error {
		shadow, err := w.shadowOf(w.a.name)
		if shadow == nil {
			return err
		}
		pid, err := qemuOf(shadow.GetName())
		if err == nil && pid == killed {
			err = errors.New("it is the one that was killed")
		}
		return err
	})
	within(t, bootLimit, "its agent forecasts", func() error { return w.served(w.a.name) })
	within(t, recovery, "it goes on where the one killed was", func() error {
		if got := w.resumed(t) - resumed; got != 1 {
			return fmt.Errorf("%d agents told so, want 1", got)
		}
		return nil
	})
	t.Logf("another shadow ran after %.1f s, and its agent was at work after %.1f s", replaced.Seconds(), time.Since(begun).Seconds())
	if got, _ := w.shadowOf(w.a.name); got.GetRestarts() != 1 {
		t.Errorf("%d restarts are told, want 1", got.GetRestarts())
	}
	w.a.undisturbed(t)
}

// stateLimit is how long it takes at most until an agent has sent what it
// learned for the first time.
const stateLimit = 75 * time.Second

// resumed returns how many agents told that they go on where another was.
func (w *wholeTest) resumed(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(w.path(w.daemon.name + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "resumed with ")
}

// restarted checks that a daemon that was started again found everything as it
// is, soon enough.
func (w *wholeTest) restarted(t *testing.T, begun time.Time, domains, pids string, shadow string) {
	t.Helper()
	within(t, recovery-time.Since(begun), "all is whole again", func() error {
		if err := w.whole(); err != nil {
			return err
		}
		return errors.Join(w.served(w.a.name), w.fresh(w.a.name))
	})
	t.Logf("whole after %.1f s", time.Since(begun).Seconds())
	if got := virsh(t, "list", "--name"); got != domains {
		t.Errorf("domains before\n%sand after\n%s", domains, got)
	}
	if got := pidsOf(t, w.a.name, shadow); got != pids {
		t.Errorf("VM and shadow are processes %s, before %s", got, pids)
	}
	list, err := w.shadows()
	running := shadowsIn(w.dir)
	if err != nil || len(list) != len(running) {
		t.Errorf("the daemon knows %v (%v), and %v run", list, err, running)
	}
	w.a.undisturbed(t)
}

// before returns what must not change by a restart.
func (w *wholeTest) before(t *testing.T) (domains, pids, shadow string) {
	t.Helper()
	sh, err := w.shadowOf(w.a.name)
	if err != nil {
		t.Fatal(err)
	}
	return virsh(t, "list", "--name"), pidsOf(t, w.a.name, sh.GetName()), sh.GetName()
}

func (w *wholeTest) daemonKilled(t *testing.T) {
	domains, pids, shadow := w.before(t)
	limits := limitsOf(t, w.a.name)
	w.daemon.kill()
	if got := limitsOf(t, w.a.name); got.cpu != limits.cpu || got.disk != limits.disk {
		t.Errorf("the limits are %+v, before %+v", got, limits)
	}
	begun := time.Now()
	w.daemon = w.up(t)
	w.restarted(t, begun, domains, pids, shadow)
	within(t, recovery, "the guard of the daemon that died has ended", func() error {
		if got := processesIn(w.dir); len(got) != 2 {
			return fmt.Errorf("processes %v: want a daemon and its guard", got)
		}
		return nil
	})
	if got := limitsOf(t, w.a.name); got == w.own {
		t.Errorf("the limits were restored, although the daemon returned")
	}
}

func (w *wholeTest) daemonAway(t *testing.T) {
	domains, pids, shadow := w.before(t)
	w.request(t, w.a.name, "cpu", "750m")
	w.daemon.kill()
	w.awaitOwnLimits(t)
	if left := processesIn(w.dir); len(left) > 0 {
		within(t, 5*time.Second, "the guard ends", func() error {
			if left := processesIn(w.dir); len(left) > 0 {
				return fmt.Errorf("processes are left: %v", left)
			}
			return nil
		})
	}
	w.a.undisturbed(t)
	begun := time.Now()
	w.daemon = w.up(t)
	w.restarted(t, begun, domains, pids, shadow)
}

// tookBack is how much, in MiB, a guest that is short of memory may have taken
// back from its balloon by itself.
const tookBack = 128

// awaitOwnLimits waits until a has the limits it had before gnomon. Memory that
// the guest uses comes back when it is done with it.
func (w *wholeTest) awaitOwnLimits(t *testing.T) {
	t.Helper()
	took := within(t, 40*time.Second, "the VM has its own limits", func() error {
		got := limitsOf(t, w.a.name)
		if got.cpu != w.own.cpu || got.disk != w.own.disk || got.memory < w.own.memory || got.memory > w.own.memory+tookBack {
			return fmt.Errorf("%+v, want %+v", got, w.own)
		}
		return nil
	})
	t.Logf("own limits after %.1f s", took.Seconds())
}

func (w *wholeTest) keep(t *testing.T) {
	domains, pids, shadow := w.before(t)
	w.ok(t, "config", "set", "onExit=keep", "--host", hostName)
	w.request(t, w.a.name, "cpu", "790m")
	within(t, recovery, "the limit is set", func() error {
		if got := limitsOf(t, w.a.name).cpu; got < 790 {
			return fmt.Errorf("the CPU limit is %d", got)
		}
		return nil
	})
	w.daemon.stop(t)
	if got := limitsOf(t, w.a.name).cpu; got < 790 {
		t.Errorf("the CPU limit is %d after a stop that keeps it", got)
	}
	if left := processesIn(w.dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if got, p := virsh(t, "list", "--name"), pidsOf(t, w.a.name, shadow); got != domains || p != pids {
		t.Errorf("domains before\n%s(%s) and after\n%s(%s)", domains, pids, got, p)
	}
}

func (w *wholeTest) startServer(t *testing.T) {
	t.Helper()
	w.server = w.start(t, "server", append([]string{"server"}, w.serverFlags()...)...)
}

func (w *wholeTest) apart(t *testing.T) {
	if err := os.RemoveAll(w.path("data", "history")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	w.startServer(t)
	w.daemon = w.start(t, "host", append([]string{"host", "--server", "http://" + w.address}, w.daemonFlags()...)...)
	w.awaitReady(t, w.daemon)
	within(t, recovery-time.Since(begun), "all is whole again", func() error {
		return errors.Join(w.served(w.a.name), w.fresh(w.a.name))
	})
	t.Logf("whole after %.1f s", time.Since(begun).Seconds())
	n, err := w.query(fmt.Sprintf(`count_over_time(gnomon_vm_cpu_usage_cores{vm=%q}[10m])`, w.a.name))
	if err != nil || n > 60 {
		t.Errorf("a wiped history holds %.0f samples (%v)", n, err)
	}
	w.a.undisturbed(t)
}

func (w *wholeTest) second(t *testing.T) {
	before := virsh(t, "list", "--name")
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"a host on the same state": {
			append(append([]string{"host"}, w.daemonFlags()...), "--run-dir", w.path("other")),
			[]string{"another gnomon host daemon", w.path("state"), "--state-dir"},
		},
		"all in one on the same state": {
			append(append([]string{"up"}, w.daemonFlags()...), "--listen", "127.0.0.1:0",
				"--data-dir", w.path("other"), "--run-dir", w.path("other")),
			[]string{"another gnomon host daemon", w.path("state")},
		},
		"a host on the same socket": {
			append(append([]string{"host"}, w.daemonFlags()...), "--state-dir", w.path("other")),
			[]string{"another daemon", w.path("run", "host.sock"), "--socket"},
		},
		"a server on the same port": {
			[]string{"server", "--listen", w.address, "--data-dir", w.path("other")},
			[]string{w.address, "address already in use", "--listen"},
		},
		"a server on the same data": {
			[]string{"server", "--listen", "127.0.0.1:0", "--data-dir", w.path("data")},
			[]string{w.path("data")},
		},
	} {
		refused(t, name, w.run(c.args...), 1, c.says...)
		if _, err := os.Stat(w.path("other")); err == nil {
			t.Errorf("%s: it created %s", name, w.path("other"))
			_ = os.RemoveAll(w.path("other"))
		}
	}
	if after := virsh(t, "list", "--name"); after != before {
		t.Errorf("domains before\n%sand after\n%s", before, after)
	}
	if err := w.whole(); err != nil {
		t.Errorf("the daemon that was there: %v", err)
	}
}

// refused checks that a command was refused with one message that says enough.
func refused(t *testing.T, what string, r result, code int, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit code %d, want %d: %s", what, r.code, code, r.stderr)
	}
	message := ""
	for line := range strings.Lines(r.stderr) {
		if !strings.HasPrefix(line, "time=") { // not the log
			message += line
		}
	}
	if strings.Count(message, "\n") != 1 || !strings.HasPrefix(message, "gnomon: ") {
		t.Errorf("%s: want one message:\n%s", what, r.stderr)
	}
	for _, text := range says {
		if !strings.Contains(message, text) {
			t.Errorf("%s: the message does not say %q: %s", what, text, message)
		}
	}
}

func (w *wholeTest) serverKilled(t *testing.T) {
	w.server.kill()
	within(t, 15*time.Second, "the host notices", func() error {
		st, err := w.status()
		if err == nil && st.GetServer() == "connected" {
			err = errors.New("the server counts as connected")
		}
		return err
	})
	if err := w.served(w.a.name); err != nil {
		t.Errorf("without its server: %v", err)
	}
	w.a.undisturbed(t)
	refused(t, "config set without a server", w.run("config", "set", "headroom=30%"), 4, w.address)
	if got := w.ok(t, "vm", "ls"); !strings.Contains(got, w.a.name) {
		t.Errorf("vm ls without a server:\n%s", got)
	}
	begun := time.Now()
	w.startServer(t)
	within(t, recovery, "all is whole again", func() error {
		return errors.Join(w.whole(), w.served(w.a.name), w.fresh(w.a.name))
	})
	t.Logf("whole after %.1f s", time.Since(begun).Seconds())
	if got := w.ok(t, "config", "get", "onExit", "--host", hostName); strings.TrimSpace(got) != "keep" {
		t.Errorf("the server forgot what was configured: onExit is %q", got)
	}
}

// libvirtdKilled kills and starts libvirtd once. Guests do not depend on it,
// others on this machine find it back.
func (w *wholeTest) libvirtdKilled(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Log("libvirtd is started by systemd here, which restarts it by itself")
	}
	_, pids, shadow := w.before(t)
	limits := limitsOf(t, w.a.name)
	out, err := exec.Command("pgrep", "-x", "libvirtd").Output()
	if err != nil {
		t.Fatalf("find libvirtd: %v", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(out))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "libvirtd is dead", func() error {
		if syscall.Kill(pid, 0) == nil && processStatus(t, pid)["State"][0] != 'Z' {
			return errors.New("it runs")
		}
		return nil
	})
	startLibvirtd(t)
	begun := time.Now()
	within(t, recovery, "all is whole again", func() error {
		return errors.Join(w.whole(), w.served(w.a.name), w.fresh(w.a.name))
	})
	t.Logf("whole %.1f s after libvirtd answered", time.Since(begun).Seconds())
	if got := pidsOf(t, w.a.name, shadow); got != pids {
		t.Errorf("VM and shadow are processes %s, before %s", got, pids)
	}
	if got := limitsOf(t, w.a.name); got.cpu < limits.cpu/2 {
		t.Errorf("the limits are %+v, before %+v", got, limits)
	}
	w.request(t, w.a.name, "disk", "30MB/s")
	within(t, recovery, "limits move again", func() error {
		if got := limitsOf(t, w.a.name); got.disk < 30_000_000 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	w.a.undisturbed(t)
}

func startLibvirtd(t *testing.T) {
	t.Helper()
	answers := func() error {
		out, err := exec.Command("virsh", "-q", "-c", "qemu:///system", "version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	start := exec.Command("libvirtd", "-d")
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		start = exec.Command("systemctl", "start", "libvirtd.service")
	}
	if out, err := start.CombinedOutput(); err != nil && answers() != nil {
		t.Fatalf("start libvirtd: %v: %s", err, out)
	}
	within(t, 30*time.Second, "libvirtd answers", answers)
}

func (w *wholeTest) stop(t *testing.T) {
	w.ok(t, "config", "set", "onExit=restore", "--host", hostName)
	within(t, 5*time.Second, "the daemon knows", func() error {
		text, err := os.ReadFile(w.path("state", "host.json"))
		if err == nil && !strings.Contains(string(text), `"onExit": "restore"`) {
			err = errors.New("onExit is not restore")
		}
		return err
	})
	w.daemon.stop(t)
	w.awaitOwnLimits(t)
	w.server.stop(t)
	w.clean(t, w.a.name)
	w.a.undisturbed(t)
}
