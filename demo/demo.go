package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// The time that steps may take.
const (
	guestReady = 2 * time.Minute // for both guests to boot
	teardown   = time.Minute     // for everything to end
)

// Run runs the demonstration until its time is over or ctx ends, prints what
// happens and a summary, and leaves the results in o.Out and nothing else. It
// first removes what a killed run left.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("create output directory: %w", err)
	}
	r := &run{Options: o, began: time.Now()}
	defer func() { err = errors.Join(err, r.end(context.WithoutCancel(ctx))) }()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.awaitSettled(ctx); err != nil {
		return err
	}
	m, err := r.measure(ctx)
	if err != nil {
		return err
	}
	return r.report(context.WithoutCancel(ctx), m)
}

// run is one demonstration, and what it has to undo.
type run struct {
	Options
	began    time.Time
	machines *machines
	lock     *os.File
	guest    appliance.Image
	shadow   appliance.Image
	speed    machineSpeed
	stack    *stack
	subjects []*subject
}

// step tells people what happens.
func (r *run) step(format string, args ...any) {
	fmt.Fprintf(r.Output, "[%5.1fs] %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// prepare connects to libvirt, clears the ground and finds the acceleration.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.machines, err = connectLibvirt(r.LibvirtSocket); err != nil {
		return err
	}
	if r.lock, err = lockDir(workDir); err != nil {
		return err
	}
	found, err := cleanUp(r.machines, workDir)
	if err != nil {
		return err
	}
	if found > 0 {
		r.step("removed what an earlier run left: %d processes and VMs", found)
	}
	if r.guest, err = place(r.Guest, "guest"); err != nil {
		return err
	}
	if r.shadow, err = place(r.Shadow, "shadow"); err != nil {
		return err
	}
	r.step("booting a guest to try the acceleration and measure a vCPU")
	if r.speed, err = tryAccel(ctx, r.machines, r.guest, r.Accel); err != nil {
		return err
	}
	r.step("acceleration: %s (%s)", r.speed.accel, r.speed.why)
	return nil
}

// place copies an image to where QEMU's user can read it.
func place(from, name string) (appliance.Image, error) {
	if _, err := appliance.Open(from); err != nil {
		return appliance.Image{}, err
	}
	to := filepath.Join(workDir, name)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return appliance.Image{}, fmt.Errorf("copy image: %w", err)
	}
	return appliance.Open(to)
}

// start starts gnomon, and then both VMs.
func (r *run) start(ctx context.Context) (err error) {
	r.step("starting gnomon (its log: %s)", filepath.Join(r.Out, "gnomon.log"))
	if r.stack, err = startStack(ctx, r.Options, workDir, r.speed.accel, r.shadow.Dir); err != nil {
		return err
	}
	if err := r.stack.configureHost(ctx, hostCapacity); err != nil {
		return err
	}
	r.subjects = []*subject{
		{name: namePrefix + "shadowed", title: "with shadow", policy: PolicyShadow, tap: "gnmdemo0"},
		{name: namePrefix + "reactive", title: "reactive", policy: PolicyReactive, tap: "gnmdemo1"},
	}
	r.step("booting two VMs of one definition: %s and %s", r.subjects[0].name, r.subjects[1].name)
	for _, s := range r.subjects {
		values := maps.Clone(bounds)
		values["shadow.enabled"] = fmt.Sprint(s.policy == PolicyShadow)
		// By its UUID a VM can be configured before it exists.
		s.id = uuid.NewString()
		if err := r.stack.configure(ctx, s.id, values); err != nil {
			return err
		}
		if err := r.boot(ctx, s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, guestReady, fmt.Errorf("not within %v", guestReady))
	defer cancel()
	for _, s := range r.subjects {
		if _, err := s.guest.await(ctx, workload.Ready); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) boot(ctx context.Context, s *subject) error {
	disk, err := makeDisk(workDir, s.name)
	if err != nil {
		return err
	}
	s.guest, err = r.machines.boot(ctx, guestSpec{
		name: s.name, id: s.id, accel: r.speed.accel, image: r.guest, tap: s.tap, disk: disk,
		cmdline: guestCommandLine(r.Seed, r.speed.iterations),
	})
	return err
}

// end removes everything that the run started, whatever state it is in.
func (r *run) end(ctx context.Context) error {
	if r.machines == nil {
		return nil
	}
	if r.stack != nil || len(r.subjects) > 0 {
		r.step("ending everything")
	}
	ctx, cancel := context.WithTimeout(ctx, teardown)
	defer cancel()
	var errs []error
	for _, s := range r.subjects {
		if s.guest != nil {
			errs = append(errs, s.guest.destroy())
		}
	}
	if r.stack != nil {
		r.stack.awaitShadowsGone(ctx)
		errs = append(errs, r.stack.stop())
	}
	if r.lock != nil {
		if _, err := cleanUp(r.machines, workDir); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, os.RemoveAll(workDir), r.lock.Close())
	}
	r.machines.close()
	return errors.Join(errs...)
}
