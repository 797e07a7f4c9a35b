// Package simulated is a host with virtual machines that exist in memory only.
//
// Time is virtual: nothing happens but in Advance. A machine wants what its
// script says and gets what its limits and the host leave it, by the physics in
// physics.go; the same calls give the same results, always.
package simulated

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Options describes the host. Zero fields take the defaults given with them.
type Options struct {
	Name  string    // "simulated"
	Start time.Time // when virtual time begins; 2000-01-01 UTC

	// Total is what the machine has: 16 cores, 64 GiB; disk and network 0,
	// which is without bound.
	Total gnomon.Resources

	// Step is the physics' resolution, 10 ms. Within one step demand and
	// limits are constant.
	Step time.Duration

	// Inflate and Deflate are how many bytes a balloon takes from its guest and
	// gives back to it per second: 450 MiB and 1.6 GiB, as measured on a guest
	// of Linux that is emulated.
	Inflate, Deflate int64

	// StatsPeriod is how often a guest tells of its memory: 1 s.
	StatsPeriod time.Duration

	// AdvanceOnApply has Apply of memory advance virtual time itself until the
	// guest has followed, at most by ApplyTimeout (5 s). Without it Apply waits
	// until another goroutine advances far enough; where there is none, use
	// Begin and Settled.
	AdvanceOnApply bool
	ApplyTimeout   time.Duration
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "simulated"
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if o.Total[gnomon.CPU] == 0 {
		o.Total[gnomon.CPU] = 16_000
	}
	if o.Total[gnomon.Memory] == 0 {
		o.Total[gnomon.Memory] = 64 << 30
	}
	if o.Step == 0 {
		o.Step = 10 * time.Millisecond
	}
	if o.Inflate == 0 {
		o.Inflate = 450 << 20
	}
	if o.Deflate == 0 {
		o.Deflate = 1_638 << 20
	}
	if o.StatsPeriod == 0 {
		o.StatsPeriod = time.Second
	}
	if o.ApplyTimeout == 0 {
		o.ApplyTimeout = 5 * time.Second
	}
	return o
}

// Driver is a simulated host. It implements hypervisor.Driver; all methods may
// be called concurrently.
type Driver struct {
	opts Options

	mu       sync.Mutex
	now      time.Time
	vms      []*vm // in the order they were added
	watchers map[*watcher]struct{}
	stepped  chan struct{} // closed and replaced by each Advance
	closed   bool
}

var (
	_ hypervisor.Driver = (*Driver)(nil)
	_ hypervisor.Noter  = (*Driver)(nil)

	errClosed = errors.New("the driver is closed")
)

// New returns a host without VMs.
func New(opts Options) *Driver {
	opts = opts.withDefaults()
	return &Driver{opts: opts, now: opts.Start, watchers: make(map[*watcher]struct{}), stepped: make(chan struct{})}
}

// Now returns the virtual time.
func (d *Driver) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// Advance lets time pass, in whole steps; what is left of dur is lost.
func (d *Driver) Advance(dur time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.advance(dur)
}

func (d *Driver) advance(dur time.Duration) {
	for ; dur >= d.opts.Step; dur -= d.opts.Step {
		d.step()
	}
	close(d.stepped)
	d.stepped = make(chan struct{})
}

// Host returns the host as the options describe it.
func (d *Driver) Host(ctx context.Context) (hypervisor.Host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return hypervisor.Host{}, err
	}
	return hypervisor.Host{Name: d.opts.Name, Total: d.opts.Total}, nil
}

// Machines returns the VMs in the order they were added.
func (d *Driver) Machines(ctx context.Context) ([]hypervisor.Machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	ms := make([]hypervisor.Machine, 0, len(d.vms))
	for _, v := range d.vms {
		ms = append(ms, v.machine())
	}
	return ms, nil
}

// Read returns the counters of those of the VMs that are there.
func (d *Driver) Read(ctx context.Context, ids []gnomon.VMID) ([]hypervisor.Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	cs := make([]hypervisor.Counters, 0, len(ids))
	for _, id := range ids {
		if v := d.find(id); v != nil {
			cs = append(cs, v.counters(d.now))
		}
	}
	return cs, nil
}

// Glance returns what the counters tell of one resource.
func (d *Driver) Glance(ctx context.Context, id gnomon.VMID, r gnomon.Resource) (hypervisor.Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return hypervisor.Counters{}, err
	}
	v := d.find(id)
	if v == nil {
		return hypervisor.Counters{}, hypervisor.ErrGone
	}
	c := v.counters(d.now)
	c.Known &= gnomon.SetOf(r)
	return c, nil
}

// Apply sets one limit. All but memory's hold from the next step on. The disks
// of simulated VMs know bytes only, no operations.
func (d *Driver) Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return 0, err
	}
	observed, err := d.begin(id, r, amount)
	switch {
	case err == nil && r == gnomon.CPU && terms.VCPUs > 0:
		v := d.find(id)
		err = v.setVCPUs(terms)
		return v.limit(r), err
	case err != nil || r != gnomon.Memory:
		return observed, err
	}
	return d.await(ctx, id, amount)
}

// await waits until the guest's balloon has the size.
func (d *Driver) await(ctx context.Context, id gnomon.VMID, amount int64) (int64, error) {
	deadline := d.now.Add(d.opts.ApplyTimeout)
	for {
		v := d.find(id)
		if v == nil {
			return 0, hypervisor.ErrGone
		}
		switch {
		case v.size == amount:
			return v.size, nil
		case v.target != amount:
			return v.size, fmt.Errorf("limit memory of %s: another change came in between", v.spec.Name)
		case d.opts.AdvanceOnApply && d.now.Before(deadline):
			d.advance(d.opts.Step)
			continue
		case d.opts.AdvanceOnApply:
			return v.hold(context.DeadlineExceeded)
		}
		stepped := d.stepped
		d.mu.Unlock()
		var err error
		select {
		case <-stepped:
		case <-ctx.Done():
			err = ctx.Err()
		}
		d.mu.Lock()
		if err != nil {
			return v.hold(err)
		}
	}
}

// Begin sets one limit without waiting. All but memory's are in force at once;
// Settled tells when memory's is.
func (d *Driver) Begin(id gnomon.VMID, r gnomon.Resource, amount int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	_, err := d.begin(id, r, amount)
	return err
}

// Settled returns the limit in force, and whether it is the one asked for last.
func (d *Driver) Settled(id gnomon.VMID, r gnomon.Resource) (observed int64, settled bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.find(id)
	if v == nil {
		return 0, false, hypervisor.ErrGone
	}
	observed = v.limit(r)
	return observed, r != gnomon.Memory || observed == v.target, nil
}

func (d *Driver) begin(id gnomon.VMID, r gnomon.Resource, amount int64) (int64, error) {
	v := d.find(id)
	switch {
	case !r.Valid():
		return 0, fmt.Errorf("limit %s: %w", r, hypervisor.ErrUnsupported)
	case v == nil:
		return 0, hypervisor.ErrGone
	case !v.spec.limits().Has(r):
		return 0, fmt.Errorf("limit %s of %s: %w: %s", r, v.spec.Name, hypervisor.ErrUnsupported, v.spec.why(r))
	case amount <= 0 && (amount != hypervisor.Unlimited || r == gnomon.Memory):
		return v.limit(r), fmt.Errorf("limit %s of %s: %d %s is no amount", r, v.spec.Name, amount, r.Unit())
	case r == gnomon.Memory && amount > v.spec.Memory:
		return v.limit(r), fmt.Errorf("limit memory of %s: %d bytes are more than the maximum of %d", v.spec.Name, amount, v.spec.Memory)
	case r == gnomon.Memory:
		v.target = amount
	default:
		v.limited[r] = amount
	}
	return v.limit(r), nil
}

// Restore returns each limit that differs from original to it.
func (d *Driver) Restore(ctx context.Context, id gnomon.VMID, original hypervisor.Original) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	var errs []error
	for r := range gnomon.AllResources() {
		v := d.find(id)
		if v == nil {
			return hypervisor.ErrGone
		}
		if r == gnomon.CPU && original.VCPUs > 0 {
			_ = v.setVCPUs(hypervisor.Terms{VCPUs: original.VCPUs, Spare: true})
		}
		if !v.spec.limits().Has(r) || v.limit(r) == original.Limits[r] && (r != gnomon.Memory || v.target == original.Limits[r]) {
			continue
		}
		_, err := d.begin(id, r, original.Limits[r])
		if err == nil && r == gnomon.Memory {
			_, err = d.await(ctx, id, original.Limits[r])
		}
		errs = append(errs, err)
	}
	if v := d.find(id); v != nil && errors.Join(errs...) == nil {
		v.own = nil
	}
	return errors.Join(errs...)
}

// Note has a VM carry its own limits.
func (d *Driver) Note(ctx context.Context, id gnomon.VMID, own hypervisor.Original) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	v := d.find(id)
	if v == nil {
		return hypervisor.ErrGone
	}
	v.own = &own
	return nil
}

// Close ends every Watch; the VMs are left as they are.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for w := range d.watchers {
		w.stop()
	}
	return nil
}

func (d *Driver) usable(ctx context.Context) error {
	if d.closed {
		return errClosed
	}
	return ctx.Err()
}

func (d *Driver) find(id gnomon.VMID) *vm {
	for _, v := range d.vms {
		if v.spec.ID == id {
			return v
		}
	}
	return nil
}
