// Package faulty wraps a hypervisor driver and has it fail as told, with the
// faults given as data.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Op names a method of the driver.
type Op string

// The methods that can fail.
const (
	Host     Op = "host"
	Machines Op = "machines"
	Watch    Op = "watch"
	Read     Op = "read"
	Glance   Op = "glance"
	Apply    Op = "apply"
	Restore  Op = "restore"
)

// ErrInjected is what an injected failure wraps.
var ErrInjected = errors.New("injected fault")

// ErrDisconnected is what every method returns while the connection is lost.
var ErrDisconnected = fmt.Errorf("%w: the connection is lost", ErrInjected)

// Fault is one thing that goes wrong. It strikes the calls that match: those of
// Op, of VM if it is set, and of Resource if OfResource is. For Read a VM
// matches if it is among those asked for.
type Fault struct {
	Op         Op              `json:"op"`
	VM         gnomon.VMID     `json:"vm,omitempty"`
	Resource   gnomon.Resource `json:"resource,omitempty"`
	OfResource bool            `json:"of_resource,omitempty"`

	// Nth is the first matching call that is struck, counted from 1; 0 is 1.
	// Times is how many are, 0 for once, less than 0 for all that follow.
	Nth   int `json:"nth,omitempty"`
	Times int `json:"times,omitempty"`

	// Delay holds the call up, until its context ends at most.
	Delay time.Duration `json:"delay,omitempty"`

	// Error fails the call with this text; the driver is not called. LateError
	// fails it after the driver has done it: the outcome is unknown.
	Error     string `json:"error,omitempty"`
	LateError string `json:"late_error,omitempty"`

	// Gone drops the VM, from this call on: every method behaves as if it had
	// ended, and watchers are told so.
	Gone bool `json:"gone,omitempty"`

	// Disconnect loses the connection, before the call is made: every method
	// fails until Reconnect, changes are missed.
	Disconnect bool `json:"disconnect,omitempty"`

	// Observed is added to the limit that Apply reads back, and to the
	// allocation that Read tells of Resource.
	Observed int64 `json:"observed,omitempty"`
}

// Driver is the wrapper. It implements hypervisor.Driver.
type Driver struct {
	inner hypervisor.Driver

	mu           sync.Mutex
	faults       []*armed
	gone         []gnomon.VMID
	disconnected bool
	watchers     map[*watcher]struct{}
}

type armed struct {
	Fault
	seen int // matching calls so far
}

var _ hypervisor.Driver = (*Driver)(nil)

// Wrap returns the driver with the faults.
func Wrap(inner hypervisor.Driver, faults ...Fault) *Driver {
	d := &Driver{inner: inner, watchers: make(map[*watcher]struct{})}
	d.Inject(faults...)
	return d
}

// Inject adds faults; the calls they count start now.
func (d *Driver) Inject(faults ...Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range faults {
		d.faults = append(d.faults, &armed{Fault: f})
	}
}

// Disconnect loses the connection.
func (d *Driver) Disconnect() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disconnected = true
}

// Reconnect brings the connection back and has watchers told to list again.
func (d *Driver) Reconnect() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.disconnected {
		return
	}
	d.disconnected = false
	for w := range d.watchers {
		w.resync()
	}
}

// Host calls the wrapped driver's.
func (d *Driver) Host(ctx context.Context) (hypervisor.Host, error) {
	late, err := d.before(ctx, Host, nil, 0)
	if err != nil {
		return hypervisor.Host{}, err
	}
	h, err := d.inner.Host(ctx)
	return h, late.join(err)
}

// Machines calls the wrapped driver's and leaves out those that are gone.
func (d *Driver) Machines(ctx context.Context) ([]hypervisor.Machine, error) {
	late, err := d.before(ctx, Machines, nil, 0)
	if err != nil {
		return nil, err
	}
	ms, err := d.inner.Machines(ctx)
	ms = slices.DeleteFunc(ms, func(m hypervisor.Machine) bool { return d.isGone(m.ID) })
	return ms, late.join(err)
}

// Read calls the wrapped driver's for those that are not gone.
func (d *Driver) Read(ctx context.Context, ids []gnomon.VMID) ([]hypervisor.Counters, error) {
	late, err := d.before(ctx, Read, ids, 0)
	if err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(slices.Clone(ids), d.isGone)
	cs, err := d.inner.Read(ctx, left)
	for i := range cs {
		for _, f := range late.hit {
			if f.VM == "" || f.VM == cs[i].VM {
				cs[i].Allocation[f.Resource] += f.Observed
			}
		}
	}
	return cs, late.join(err)
}

// Glance calls the wrapped driver's.
func (d *Driver) Glance(ctx context.Context, id gnomon.VMID, r gnomon.Resource) (hypervisor.Counters, error) {
	late, err := d.before(ctx, Glance, []gnomon.VMID{id}, r)
	if err != nil {
		return hypervisor.Counters{}, err
	}
	if d.isGone(id) {
		return hypervisor.Counters{}, hypervisor.ErrGone
	}
	c, err := d.inner.Glance(ctx, id, r)
	for _, f := range late.hit {
		c.Allocation[r] += f.Observed
	}
	return c, late.join(err)
}

// Apply calls the wrapped driver's.
func (d *Driver) Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	late, err := d.before(ctx, Apply, []gnomon.VMID{id}, r)
	if err != nil {
		return 0, err
	}
	if d.isGone(id) {
		return 0, hypervisor.ErrGone
	}
	got, err := d.inner.Apply(ctx, id, r, amount, terms)
	for _, f := range late.hit {
		got += f.Observed
	}
	return got, late.join(err)
}

// Restore calls the wrapped driver's.
func (d *Driver) Restore(ctx context.Context, id gnomon.VMID, original hypervisor.Original) error {
	late, err := d.before(ctx, Restore, []gnomon.VMID{id}, 0)
	if err != nil {
		return err
	}
	if d.isGone(id) {
		return hypervisor.ErrGone
	}
	return late.join(d.inner.Restore(ctx, id, original))
}

// Close closes the wrapped driver.
func (d *Driver) Close() error { return d.inner.Close() }

// struck is what strikes one call.
type struck struct{ hit []Fault }

// join returns the error of a call that was made, with those that come late.
func (s struck) join(err error) error {
	for _, f := range s.hit {
		if f.LateError != "" {
			err = errors.Join(err, fmt.Errorf("%w: %s", ErrInjected, f.LateError))
		}
	}
	return err
}

// before does what the faults do before the call is made.
func (d *Driver) before(ctx context.Context, op Op, ids []gnomon.VMID, r gnomon.Resource) (struck, error) {
	s := d.strike(op, ids, r)
	for _, f := range s.hit {
		if f.Delay == 0 {
			continue
		}
		timer := time.NewTimer(f.Delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return s, fmt.Errorf("%w: delayed: %w", ErrInjected, ctx.Err())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disconnected {
		return s, ErrDisconnected
	}
	for _, f := range s.hit {
		if f.Error != "" {
			return s, fmt.Errorf("%w: %s", ErrInjected, f.Error)
		}
	}
	return s, nil
}

// strike counts the call, and drops and disconnects as the faults that strike
// it say.
func (d *Driver) strike(op Op, ids []gnomon.VMID, r gnomon.Resource) struck {
	d.mu.Lock()
	defer d.mu.Unlock()
	var s struck
	for _, f := range d.faults {
		if f.Op != op || f.VM != "" && !slices.Contains(ids, f.VM) || f.OfResource && op == Apply && f.Resource != r {
			continue
		}
		f.seen++
		past := f.seen - max(f.Nth, 1)
		if past < 0 || f.Times >= 0 && past >= max(f.Times, 1) {
			continue
		}
		s.hit = append(s.hit, f.Fault)
		if f.Disconnect {
			d.disconnected = true
		}
		if f.Gone {
			d.drop(f.VM, ids)
		}
	}
	return s
}

// drop has the VM be gone; without one, those that the call is about.
func (d *Driver) drop(vm gnomon.VMID, ids []gnomon.VMID) {
	if vm != "" {
		ids = []gnomon.VMID{vm}
	}
	for _, id := range ids {
		if slices.Contains(d.gone, id) {
			continue
		}
		d.gone = append(d.gone, id)
		for w := range d.watchers {
			w.put(hypervisor.Change{Kind: hypervisor.Stopped, VM: id})
		}
	}
}

func (d *Driver) isGone(id gnomon.VMID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.gone, id)
}
