package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

type deployView struct {
	Name, ID, Account, Host, Shadow string
	Warm                            bool
	StartMs                         float64 `json:"start_ms"`
	AssociateMs                     float64 `json:"associate_ms"`
}

// associateLimit is far above what an association takes, since the machine that
// tests may be busy: what it took is in the log.
const associateLimit = 5 * time.Second

// A VM is deployed by its definition, is served by its account's warm shadow,
// and keeps that, with all it has in memory, when it is given another name.
func TestDeploy(t *testing.T) {
	s := newSystem(t, "-d", "none")
	daemon := s.up(t)
	account, name := mine+"-acme", mine+"-d1"
	g, definition := newGuest(t, s.dir, name, "", "", diskOf(s.dir, name))
	s.ok(t, "config", "set", "onTermination=suspend")
	s.ok(t, "account", "create", account)
	warm := ""
	within(t, bootLimit, "the warm shadow waits", func() error {
		list, err := s.shadows()
		if err != nil {
			return err
		}
		if len(list) != 1 || !list[0].GetConnected() {
			return fmt.Errorf("shadows: %v", list)
		}
		warm = list[0].GetName()
		return nil
	})

	deploy := []string{"vm", "deploy", "-f", definition, "--account", account}
	s.ok(t, append(deploy, "--dry-run")...)
	refuseDeployments(t, s, definition, deploy)
	if out, err := exec.Command("virsh", "-q", "dominfo", name).CombinedOutput(); err == nil {
		t.Fatalf("a trial or a failure left the VM behind: %s", out)
	}

	deploy = append(deploy, "--request-id", mine)
	v := get[deployView](t, s, deploy...)
	if v.Name != name || v.ID != g.id || v.Account != account || v.Host != hostName || v.Shadow != warm || !v.Warm {
		t.Errorf("deployed: %+v, want the shadow %s", v, warm)
	}
	t.Logf("started in %.0f ms, associated %.1f ms later", v.StartMs, v.AssociateMs)
	if took := time.Duration(v.AssociateMs * float64(time.Millisecond)); took <= 0 || took > associateLimit {
		t.Errorf("its shadow was associated after %v", took)
	}
	if again := get[deployView](t, s, deploy...); again != v {
		t.Errorf("the same request again: %+v, at first %+v", again, v)
	}
	refused(t, "a name that is taken", s.run(deploy[:len(deploy)-2]...), 1, fmt.Sprintf("a VM named %q runs on host %q", name, hostName))
	if own := notedMemory(t, s, g.id); own != guestMiB<<20 {
		t.Errorf("noted as its own memory: %d MiB, want the %d of its definition", own>>20, guestMiB)
	}
	g.open(t)
	g.awaitReady(t)
	within(t, recovery, "its agent forecasts", func() error { return s.served(name) })

	// libvirt renames VMs that are off.
	virsh(t, "destroy", name)
	renamed := name + "-renamed"
	t.Cleanup(func() {
		_ = exec.Command("virsh", "-q", "destroy", renamed).Run()
		_ = exec.Command("virsh", "-q", "undefine", renamed).Run()
	})
	virsh(t, "domrename", name, renamed)
	virsh(t, "start", renamed)
	within(t, bootLimit, "its agent forecasts again", func() error { return s.served(renamed) })
	if got, err := s.shadowOf(renamed); err != nil || got.GetName() != warm {
		t.Errorf("after the rename its shadow is %v, %v; want %s", got, err, warm)
	}
	if got := get[vmView](t, s, "vm", "show", renamed); got.ID != g.id || got.Account != account {
		t.Errorf("after the rename: %+v", got)
	}
	virsh(t, "destroy", renamed)
	virsh(t, "undefine", renamed)
	daemon.stop(t)
	s.clean(t)
}

// notedMemory is what the daemon would give a VM back of memory, in bytes.
func notedMemory(t *testing.T, s *system, id string) int64 {
	t.Helper()
	text, err := os.ReadFile(s.path("state", "host.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		Originals map[string]struct{ Limits gnomon.Limits }
	}
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	return state.Originals[id].Limits[gnomon.Memory]
}

// refuseDeployments tries definitions that no VM comes of.
func refuseDeployments(t *testing.T, s *system, definition string, deploy []string) {
	t.Helper()
	text, err := os.ReadFile(definition)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, old, changed string, code int, says ...string) {
		t.Helper()
		broken := strings.Replace(string(text), old, changed, 1)
		if broken == string(text) {
			t.Fatalf("%s: the definition has no %q", what, old)
		}
		if err := os.WriteFile(s.path("broken.xml"), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		args := append([]string{}, deploy...)
		args[3] = s.path("broken.xml")
		refused(t, what, s.run(args...), code, says...)
	}
	try("an element that libvirt does not know", "<devices>", "<devices><teapot/>", 2, hostName, "the hypervisor refuses the definition")
	try("a file that is missing", "initramfs.cpio.gz", "nothing.gz", 1, hostName, "start VM", "nothing.gz")
	try("more vCPUs than there are", ">1</vcpu>", ">64</vcpu>", 1, "over capacity", "64 cores is asked for")
	try("a path past libvirt", "</domain>",
		`<q:commandline xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0"><q:arg value="-s"/></q:commandline></domain>`, 2, "qemu:commandline")
}
