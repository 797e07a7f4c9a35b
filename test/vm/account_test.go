package vm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// warm checks that an account's shadow is there before its VM is.
func (w *wholeTest) warm(t *testing.T) {
	w.ok(t, "config", "set", "onTermination=suspend", "--host", hostName)
	w.ok(t, "account", "create", w.account)
	var warm *hostpb.Shadow
	within(t, bootLimit, "the warm shadow waits", func() error {
		list, err := w.shadows()
		if err != nil {
			return err
		}
		for _, sh := range list {
			if sh.GetAccount() == w.account && sh.GetConnected() {
				warm = sh
				return nil
			}
		}
		return fmt.Errorf("shadows: %v", list)
	})
	within(t, recovery, "the server knows of it", func() error {
		accounts := get[[]struct{ Name, Host, Shadow string }](t, w.system, "account", "ls")
		if len(accounts) != 1 || accounts[0].Name != w.account || accounts[0].Host != hostName || accounts[0].Shadow != "warm" {
			return fmt.Errorf("account ls: %+v", accounts)
		}
		return nil
	})
	w.ok(t, "vm", "enroll", w.b.name)
	took := within(t, recovery, "the VM has the account's shadow", func() error { return w.served(w.b.name) })
	t.Logf("served %v after it was enrolled", took.Round(time.Millisecond))
	v := get[vmView](t, w.system, "vm", "show", w.b.name)
	if v.Shadow != warm.GetName() || v.Account != w.account {
		t.Errorf("vm show: %+v: want the shadow %s", v, warm.GetName())
	}
	within(t, 5*time.Second, "it is noted whose the shadow is",
		w.noted(warm.GetName(), "for "+w.b.id, func(r shadowRecord) bool { return r.For == w.b.id }))
	within(t, recovery, "the server has a host with two VMs", func() error {
		hosts := get[[]struct {
			Name         string
			Connected    bool
			VMs, Shadows int
		}](t, w.system, "host", "ls")
		if len(hosts) != 1 || !hosts[0].Connected || hosts[0].VMs != 2 || hosts[0].Shadows != 2 {
			return fmt.Errorf("host ls: %+v", hosts)
		}
		return nil
	})
}

func (w *wholeTest) fullDisk(t *testing.T) {
	empty := fill(t, w.path("state"))
	defer empty()
	before := virsh(t, "list", "--name")
	r := w.run("vm", "release", w.b.name)
	if r.code == 0 || !strings.Contains(r.stderr, "no space left on device") || !strings.Contains(r.stderr, w.path("state")) {
		t.Errorf("release with a full disk: exit code %d, %s", r.code, r.stderr)
	}
	if v, err := w.vm(w.b.name); err != nil || v.GetShadow() == "" {
		t.Errorf("the VM is no longer as it was: %v, %v", v, err)
	}
	if after := virsh(t, "list", "--name"); after != before {
		t.Errorf("domains before\n%s\nand after\n%s", before, after)
	}
}

func (w *wholeTest) quota(t *testing.T) {
	ahead := func() result {
		return w.run("vm", "request", w.b.name, "cpu", "1", "--ahead", "5s", "--lifetime", "5s")
	}
	w.ok(t, "config", "set", "quota=cpu=10m", "priority=80", "--account", w.account)
	within(t, bootLimit, "a request beyond the quota is told so", func() error { // once the VM has less
		if r := ahead(); !strings.Contains(r.stdout+r.stderr, "the quota of account "+w.account+" allows no more") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
	if v, err := w.vm(w.b.name); err != nil || v.GetPriority() != 80 {
		t.Errorf("the VM is told as %v, %v; want a priority of 80", v, err)
	}
	if text := w.ok(t, "host", "status"); !strings.Contains(text, w.account) {
		t.Errorf("host status does not tell the quota:\n%s", text)
	}
	w.ok(t, "config", "unset", "quota", "priority", "--account", w.account)
	within(t, settle, "without a quota it is granted", func() error {
		if r := ahead(); !strings.HasPrefix(r.stdout, "granted") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
}

func (w *wholeTest) releaseEnroll(t *testing.T) {
	sh, err := w.shadowOf(w.b.name)
	if err != nil {
		t.Fatal(err)
	}
	w.request(t, w.b.name, "memory", "200MiB")
	within(t, settle, "the VM has more memory", func() error {
		if got := limitsOf(t, w.b.name).memory; got < 200 {
			return fmt.Errorf("%d MiB", got)
		}
		return nil
	})
	w.ok(t, "vm", "release", w.b.name)
	within(t, settle, "the VM has its own limits", func() error {
		if got, want := limitsOf(t, w.b.name), (limits{cpu: -1, memory: guestMiB}); got != want {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	within(t, settle, "its shadow is suspended", w.noted(sh.GetName(), "paused", isPaused))
	w.ok(t, "vm", "enroll", w.b.name)
	within(t, recovery, "the same shadow serves it again", func() error {
		got, err := w.shadowOf(w.b.name)
		if err == nil && got.GetName() != sh.GetName() {
			err = fmt.Errorf("its shadow is %s, not %s", got.GetName(), sh.GetName())
		}
		return err
	})
}

// termination ends the account's VM for good, and then the account.
func (w *wholeTest) termination(t *testing.T) {
	sh, err := w.shadowOf(w.b.name)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.run("account", "rm", w.account); r.code == 0 || !strings.Contains(r.stderr, w.account) {
		t.Errorf("removing an account that has a VM: exit code %d, %s", r.code, r.stderr)
	}
	w.ok(t, "config", "unset", "onTermination", "--host", hostName)
	within(t, 2*time.Second, "the daemon knows", func() error {
		text, err := os.ReadFile(w.path("state", "host.json"))
		if err == nil && strings.Contains(string(text), "onTermination") {
			err = errors.New("onTermination is still set")
		}
		return err
	})
	before := pidOf(t, sh.GetName()) // the account's next warm one may have its name
	virsh(t, "destroy", w.b.name)
	within(t, settle, "the shadow ends with its VM", func() error {
		if pid, err := qemuOf(sh.GetName()); err == nil && pid == before {
			return fmt.Errorf("%s runs", sh.GetName())
		}
		return nil
	})
	if r := w.run("vm", "show", w.b.name); r.code != 3 || !strings.Contains(r.stderr, w.b.name) {
		t.Errorf("a VM that ended: exit code %d, %s", r.code, r.stderr)
	}
	within(t, recovery, "the account can be removed", func() error {
		if r := w.run("account", "rm", w.account); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
	within(t, bootLimit, "no shadow waits for it any more", func() error {
		if got := shadowsIn(w.dir); len(got) != 1 {
			return fmt.Errorf("%v run", got)
		}
		return nil
	})
}
