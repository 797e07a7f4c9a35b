// Package rig boots the guests of benchmarks on the system's libvirt and gives
// them work.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/hypervisor/libvirt"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/test/bench/item"
)

// Rig is a libvirt to measure on. Close it.
type Rig struct {
	Driver *libvirt.Driver

	// Pressure is the best source of onsets that this host allows, and the driver's
	// of vCPUs' times, as the daemon has it; PressureWhy tells why there is none better.
	Pressure    pressure.Source
	PressureWhy error

	dir    string // for images and sockets; QEMU's user can reach it
	image  appliance.Image
	guests []*Guest
	sinks  []net.Listener
}

// modules are those that a guest needs.
var modules = []string{"virtio_pci", "virtio_balloon", "virtio_blk", "virtio_net", "virtio_console", "virtio_mem"}

// Open connects to libvirt and builds the guests' image from the checkout at
// root.
func Open(ctx context.Context, root string) (*Rig, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("benchmarks on real guests need root")
	}
	dir, err := os.MkdirTemp("", "gnomon-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	r := &Rig{dir: dir}
	if err := r.open(ctx, root); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) open(ctx context.Context, root string) (err error) {
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	tree, err := appliance.FetchKernel(ctx, filepath.Join(root, "build", "kernel"), os.Stderr)
	if err != nil {
		return err
	}
	init := filepath.Join(r.dir, "init")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", init, "./test/bench/guest")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build guest: %w: %s", err, out)
	}
	r.image, err = appliance.Build(ctx, appliance.Options{
		KernelTree: tree, Init: init, Out: filepath.Join(r.dir, "image"), Modules: modules,
	})
	if err != nil {
		return err
	}
	if r.Pressure, r.PressureWhy, err = pressure.Open(pressure.Auto); err != nil {
		return err
	}
	r.Driver, err = libvirt.Open(ctx, libvirt.Options{CPUTimes: pressure.TimesOf(r.Pressure)})
	return err
}

// Close destroys the guests and removes all that was made for them.
func (r *Rig) Close() error {
	var errs []error
	for _, g := range r.guests {
		errs = append(errs, g.destroy())
	}
	for _, l := range r.sinks {
		errs = append(errs, l.Close())
	}
	if r.Driver != nil {
		errs = append(errs, r.Driver.Close())
	}
	if r.Pressure != nil {
		r.Pressure.Close()
	}
	errs = append(errs, os.RemoveAll(r.dir))
	return errors.Join(errs...)
}

// serve takes what the guest of a subnet sends, and closes a connection once
// all of it has arrived.
func (r *Rig) serve(ctx context.Context, subnet int) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", fmt.Sprintf(item.HostAddress+":%d", subnet, item.SinkPort))
	if err != nil {
		return fmt.Errorf("listen for guest: %w", err)
	}
	r.sinks = append(r.sinks, l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	return nil
}
