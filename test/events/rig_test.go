package events

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/gnomon-vm/gnomon/wire/recording"
)

const (
	bootLimit = 90 * time.Second // on a busy machine without KVM
	stopLimit = 45 * time.Second
)

// rig is a VM, and the program with a shadow for it.
type rig struct {
	dir, name string
	program   string
	address   string
	guest     net.Conn
	said      *bufio.Scanner
	host      hostpbconnect.HostServiceClient
	daemon    *exec.Cmd
}

// newRig boots a VM of one vCPU and starts the program, with more flags, on it.
// The shadow runs echo, unless it is to run the real agent.
func newRig(t *testing.T, agent bool, flags ...string) *rig {
	t.Helper()
	if os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skip("needs root and libvirt; GNOMON_TEST_VM=1 runs it")
	}
	dir, err := os.MkdirTemp("", "gne-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dir: dir, name: filepath.Base(dir), program: filepath.Join(root, "bin", "gnomon")}
	r.image(t, root, "vm")
	shadow := "echo"
	if agent {
		shadow = "appliance"
		if err := os.CopyFS(filepath.Join(dir, shadow), os.DirFS(filepath.Join(root, "build", "appliance"))); err != nil {
			t.Fatalf("%v: run \"make appliance\" first", err)
		}
	} else {
		r.image(t, root, "echo")
	}
	r.boot(t)
	r.up(t, append([]string{"--appliance", filepath.Join(dir, shadow)}, flags...))
	return r
}

// image builds a guest around one of the programs in testdata.
func (r *rig) image(t *testing.T, root, what string) {
	t.Helper()
	init := filepath.Join(r.dir, what+"-init")
	build := exec.Command("go", "build", "-o", init, "./testdata/"+what)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	command(t, build)
	command(t, exec.Command(r.program, "appliance", "build", "--init", init, "--out", filepath.Join(r.dir, what),
		"--kernels", filepath.Join(root, "build", "kernel")))
}

func command(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func virsh(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, exec.Command("virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...))
}

// boot starts the VM, held at a tenth of a core as an operator would, and waits
// until it is idle.
func (r *rig) boot(t *testing.T) {
	t.Helper()
	definition := filepath.Join(r.dir, "vm.xml")
	text := fmt.Sprintf(`<domain type="qemu"><name>%s</name>
  <memory unit="MiB">160</memory><vcpu>1</vcpu>
  <os><type arch="x86_64" machine="q35">hvm</type><kernel>%s</kernel><initrd>%s</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
  <features><acpi/></features>
  <devices>
    <channel type="unix"><source mode="bind"/><target type="virtio" name="org.gnomon.test.0"/></channel>
    <memballoon model="virtio"/>
  </devices></domain>`, r.name, filepath.Join(r.dir, "vm", "vmlinuz"), filepath.Join(r.dir, "vm", "initramfs.cpio.gz"))
	if err := os.WriteFile(definition, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("virsh", "-q", "destroy", r.name).Run() })
	virsh(t, "create", definition)
	var dom libvirtxml.Domain
	if err := xml.Unmarshal([]byte(virsh(t, "dumpxml", r.name)), &dom); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.guest, err = net.Dial("unix", dom.Devices.Channels[0].Source.UNIX.Path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.guest.Close() })
	r.said = bufio.NewScanner(r.guest)
	r.hears(t, "ready", bootLimit)
	virsh(t, "schedinfo", r.name, "--live", "--set", "vcpu_period=20000", "--set", "vcpu_quota=2000")
}

// hears waits for a line of the guest.
func (r *rig) hears(t *testing.T, line string, limit time.Duration) {
	t.Helper()
	_ = r.guest.SetReadDeadline(time.Now().Add(limit))
	if !r.said.Scan() || strings.TrimSpace(r.said.Text()) != line {
		t.Fatalf("the guest said %q (%v), want %q", r.said.Text(), r.said.Err(), line)
	}
}

// compute has the guest compute for so long, and returns when it was told to.
func (r *rig) compute(t *testing.T, d time.Duration) time.Time {
	t.Helper()
	told := time.Now()
	if _, err := fmt.Fprintln(r.guest, d.Milliseconds()); err != nil {
		t.Fatal(err)
	}
	r.hears(t, "done", 10*d+10*time.Second)
	return told
}

func (r *rig) recordings() string { return filepath.Join(r.dir, "record") }

// up starts the program and waits until the VM's agent is attached.
func (r *rig) up(t *testing.T, flags []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	l.Close()
	log, err := os.Create(filepath.Join(r.dir, "gnomon.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.daemon = exec.Command(r.program, append([]string{"up", "--name", "gne-host", "--vms", r.name, "--accel", "tcg",
		"--state-dir", filepath.Join(r.dir, "state"), "--run-dir", filepath.Join(r.dir, "run"),
		"--data-dir", filepath.Join(r.dir, "data"), "--listen", r.address,
		"--record", r.recordings(), "--guard-grace", "4s"}, flags...)...)
	r.daemon.Stdout, r.daemon.Stderr = log, log
	if err := r.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.down(t) })
	t.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("gnomon.log:\n%s", text)
		}
	})
	r.host = hostpbconnect.NewHostServiceClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(r.dir, "run", "host.sock"))
		},
	}}, "http://host")
	within(t, bootLimit, "the agent is attached", func() error {
		res, err := r.host.ListShadows(t.Context(), connect.NewRequest(&hostpb.ListShadowsRequest{}))
		if err != nil {
			return err
		}
		for _, s := range res.Msg.GetShadows() {
			if s.GetVm() == r.name && s.GetConnected() {
				return nil
			}
		}
		return fmt.Errorf("shadows: %v", res.Msg.GetShadows())
	})
	// What was allocated goes back as soon as it is not needed.
	r.gnomon(t, "config", "set", "hold=1s")
}

func (r *rig) gnomon(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(r.program, args...)
	cmd.Env = append(os.Environ(), "GNOMON_SERVER=http://"+r.address, "GNOMON_SOCKET="+filepath.Join(r.dir, "run", "host.sock"))
	return command(t, cmd)
}

// down ends the program in good order, which writes its recording out.
func (r *rig) down(t *testing.T) {
	if r.daemon.ProcessState != nil {
		return
	}
	_ = r.daemon.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- r.daemon.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("gnomon up ended with %v", err)
		}
	case <-time.After(stopLimit):
		_ = r.daemon.Process.Kill()
		<-ended
		t.Errorf("gnomon up did not end within %v", stopLimit)
	}
}

// cpuLimit is the VM's limit as the daemon last saw it, in millicores.
func (r *rig) cpuLimit(t *testing.T) (int64, error) {
	res, err := r.host.ListVMs(t.Context(), connect.NewRequest(&hostpb.ListVMsRequest{}))
	if err != nil {
		return 0, err
	}
	for _, v := range res.Msg.GetVms() {
		for _, s := range v.GetResources() {
			if v.GetName() == r.name && s.GetResource() == gnomon.CPU.String() {
				return s.GetAllocation(), nil
			}
		}
	}
	return 0, fmt.Errorf("%s is not taken in", r.name)
}

// awaitIdle waits until the VM has only its floor again.
func (r *rig) awaitIdle(t *testing.T) {
	t.Helper()
	within(t, 2*time.Minute, "the limit is low again", func() error {
		limit, err := r.cpuLimit(t)
		if err == nil && limit > 110 {
			err = fmt.Errorf("%d millicores", limit)
		}
		return err
	})
}

// recorded returns the events that the daemon recorded. It has to be down.
func (r *rig) recorded(t *testing.T) (events []gnomon.Event) {
	t.Helper()
	files, err := recording.Files(r.recordings())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range recording.Read(f) {
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			events = append(events, e)
		}
		f.Close()
	}
	return events
}

func within(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begun) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}
