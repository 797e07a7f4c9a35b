package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon/demo/workload"
)

// DefaultLibvirtSocket is where libvirtd listens.
const DefaultLibvirtSocket = "/run/libvirt/libvirt-sock"

// Options say what to run. Every field but Warmup, Window and Terminal is
// required.
type Options struct {
	// Window is how long to measure; 0 is until the context ends.
	Window time.Duration
	// Warmup is how long the workload runs before it is measured.
	Warmup time.Duration
	// Seed decides the workload.
	Seed uint64
	// Accel is auto, kvm or tcg.
	Accel string
	// Out is the directory for the summary, the plots and the daemon's log.
	Out string

	// Executable is the gnomon program. Shadow and Guest are the folders of the
	// shadow's and the demo guest's built images.
	Executable, Shadow, Guest string

	LibvirtSocket string

	// Output is told what happens. Terminal says that it may be redrawn.
	Output   io.Writer
	Terminal bool
}

// check finds what is wrong with the options before anything is touched.
func (o Options) check() error {
	switch {
	case o.Window < 0 || o.Warmup < 0:
		return errors.New("the time to run cannot be negative")
	case o.Window > 0 && o.Window < time.Second:
		return errors.New("the time to run must be 0 (until Ctrl-C) or at least a second")
	case o.Accel != "auto" && o.Accel != "kvm" && o.Accel != "tcg":
		return fmt.Errorf("acceleration %q: want auto, kvm or tcg", o.Accel)
	case os.Geteuid() != 0:
		return errors.New("the demo starts VMs on the system's libvirt and needs root")
	}
	for _, dir := range []string{o.Shadow, o.Guest} {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("no image in %s; run \"make appliance\"", dir)
		}
	}
	return nil
}

// GuestModules are the kernel modules that a demo guest needs: channel,
// balloon, disk and interface.
var GuestModules = []string{"virtio_pci", "virtio_console", "virtio_balloon", "virtio_blk", "virtio_net"}

// guestCommandLine returns what a guest is told on its kernel's command line.
func guestCommandLine(seed uint64, iterations int64) string {
	return fmt.Sprintf("%s=%d %s=%d", workload.KeySeed, seed, workload.KeyIterations, iterations)
}

// bounds are the parameters of both VMs, the same for either. Allocations
// shrink after five seconds so that bursts twelve seconds apart do not find
// the last one's allocation still there.
var bounds = map[string]string{
	"limits.floor":   "cpu=150m,memory=160MiB,disk=2MB/s,network=1MB/s",
	"limits.ceiling": "cpu=1,memory=448MiB,disk=20MB/s,network=20MB/s",
	"hold":           "5s",
}

// hostCapacity is what a machine cannot tell of itself.
var hostCapacity = map[string]string{"capacity": "disk=100MB/s,network=100MB/s"}
