// Package libvirt drives a host's QEMU virtual machines through libvirt.
//
// It speaks libvirt's protocol over the daemon's Unix socket. Limits are set on
// the running machine only, never in its stored definition: CPU by the vCPUs'
// bandwidth quota and, if asked, their number, memory by the balloon, disk by the
// block throttle, network by a shaper on the taps (see the package shaper). Limits
// that belong to a machine as a whole are shared by its writable disks, and split
// evenly over its interfaces and, unless their number is asked for, its vCPUs.
package libvirt

import (
	"context"
	"fmt"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/shaper"
)

// Options tells how to reach libvirt. The zero value is the system's daemon.
type Options struct {
	// Socket is the daemon's Unix socket. By default the first that exists of
	// /run/libvirt/libvirt-sock and /run/libvirt/virtqemud-sock.
	Socket string

	// URI is the driver to open, by default qemu:///system.
	URI string

	// CPUTimes tells how many vCPUs of a VM somebody follows already, and how
	// long they ran and waited in sum; false for one that nobody follows. nil if
	// there is nobody.
	CPUTimes func(gnomon.VMID) (vcpus int, ran, waited time.Duration, ok bool)

	// Timeout bounds a call whose context has no deadline; by default 30 s.
	Timeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Socket == "" {
		o.Socket = defaultSocket()
	}
	if o.URI == "" {
		o.URI = string(lv.QEMUSystem)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	return o
}

// Driver is a connection to a host's libvirt daemon that renews itself. It
// implements hypervisor.Driver.
type Driver struct {
	opts  Options
	shape *shaper.Shaper

	ctx     context.Context // ends with Close
	close   context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	session *session // nil while there is no connection
	lastErr error    // why not
	domains map[lv.UUID]*domain
	listed  map[lv.UUID]listed

	changes hub
}

var _ hypervisor.Driver = (*Driver)(nil)

// Open connects to libvirt. It fails with an error that says what to do if the
// daemon cannot be reached; once open, a lost connection is renewed.
func Open(ctx context.Context, opts Options) (*Driver, error) {
	opts = opts.withDefaults()
	s, err := connect(ctx, opts)
	if err != nil {
		return nil, err
	}
	shape, err := shaper.New()
	if err != nil {
		s.drop()
		return nil, err
	}
	// Devices left over from taps that went while nobody looked are harmless;
	// not being able to delete them is no reason not to start.
	_ = shape.Sweep()
	d := &Driver{opts: opts, shape: shape, domains: make(map[lv.UUID]*domain)}
	d.ctx, d.close = context.WithCancel(context.Background())
	if err := d.subscribe(s); err != nil {
		d.close()
		s.drop()
		d.running.Wait()
		shape.Close()
		return nil, err
	}
	d.session = s
	d.running.Go(func() { d.supervise(s) })
	return d, nil
}

// Close ends the connection and every Watch. It changes no VM.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.close()
	s := d.session
	d.mu.Unlock()
	if s != nil {
		s.drop()
	}
	d.running.Wait()
	d.shape.Close()
	return nil
}

// spawn runs f until it returns; Close waits for it.
func (d *Driver) spawn(f func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return errClosed
	}
	d.running.Go(f)
	return nil
}

// Host returns the machine's name, cores and memory.
func (d *Driver) Host(ctx context.Context) (hypervisor.Host, error) {
	return call(ctx, d, func(l *lv.Libvirt) (hypervisor.Host, error) {
		name, err := l.ConnectGetHostname()
		if err != nil {
			return hypervisor.Host{}, fmt.Errorf("get host name: %w", err)
		}
		_, memoryKiB, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		if err != nil {
			return hypervisor.Host{}, fmt.Errorf("get host's size: %w", err)
		}
		h := hypervisor.Host{Name: name}
		h.Total[gnomon.CPU] = int64(cpus) * 1000
		h.Total[gnomon.Memory] = int64(memoryKiB) * 1024
		return h, nil
	})
}
