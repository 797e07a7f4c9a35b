package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// domain is what is kept of a running domain between calls. One that is started
// anew gets a new ID from libvirt, and with it a new domain here.
type domain struct {
	lv.Domain
	id  gnomon.VMID
	def *definition

	limits gnomon.ResourceSet
	why    [gnomon.NumResources]string
	cpu    cpuController
	begins int64 // the memory that its stored definition gives it; 0 if none is stored

	// outdated tells that the definition changed; the driver's mu guards it.
	outdated bool

	*live
}

// live is what of a running domain outlasts a change of its definition.
type live struct {
	// busy serialises what changes one resource; each holds a token while free.
	busy [gnomon.NumResources]chan struct{}

	quota    memo[quotas]
	throttle memo[throttles]
	traffic  traffic

	mu    sync.Mutex
	vcpus int       // as last seen; hotplug changes it
	moved time.Time // when the balloon was last seen to move
	late  int       // calls given up that have not returned
	told  told
}

func newLive(vcpus int) *live {
	l := &live{vcpus: vcpus}
	for r := range l.busy {
		l.busy[r] = make(chan struct{}, 1)
		l.busy[r] <- struct{}{}
	}
	return l
}

// lookup returns the running domain of that ID.
func (d *Driver) lookup(ctx context.Context, id gnomon.VMID) (*domain, error) {
	uuid, err := parseUUID(id)
	if err != nil {
		return nil, errors.Join(hypervisor.ErrGone, err)
	}
	dom, err := call(ctx, d, func(l *lv.Libvirt) (lv.Domain, error) { return l.DomainLookupByUUID(uuid) })
	switch {
	case lv.IsNotFound(err) || err == nil && dom.ID < 0:
		return nil, hypervisor.ErrGone
	case err != nil:
		return nil, fmt.Errorf("look up VM: %w", err)
	}
	return d.known(ctx, dom)
}

// known returns what is kept of the domain, learning it first if need be.
func (d *Driver) known(ctx context.Context, dom lv.Domain) (*domain, error) {
	d.mu.Lock()
	if dm := d.domains[dom.UUID]; dm != nil && dm.ID == dom.ID && !dm.outdated {
		d.mu.Unlock()
		return dm, nil
	}
	d.mu.Unlock()
	dm, err := d.learn(ctx, dom)
	if err != nil {
		return nil, d.goneOr(ctx, dom, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.domains[dom.UUID]; old != nil && old.ID == dom.ID {
		dm.live = old.live
		dm.setVCPUs(dm.def.vcpus)
	}
	d.domains[dom.UUID] = dm
	return dm, nil
}

// forget drops what is kept of a domain that started or stopped.
func (d *Driver) forget(uuid lv.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.domains, uuid)
}

// relearn has the domain's definition read again at its next use.
func (d *Driver) relearn(uuid lv.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dm := d.domains[uuid]; dm != nil {
		dm.outdated = true
	}
}

func (d *Driver) learn(ctx context.Context, dom lv.Domain) (*domain, error) {
	text, err := call(ctx, d, func(l *lv.Libvirt) (string, error) { return l.DomainGetXMLDesc(dom, 0) })
	if err != nil {
		return nil, fmt.Errorf("get definition: %w", err)
	}
	def, err := parseDefinition(text)
	if err != nil {
		return nil, err
	}
	dm := &domain{Domain: dom, id: idOf(dom), def: def, why: def.why, live: newLive(def.vcpus)}
	if dm.begins, err = d.begins(ctx, dom); err != nil {
		return nil, err
	}
	dm.cpu = findController(dom.Name)
	if dm.cpu == (cpuController{}) {
		if _, err := d.askQuotas(ctx, dm); err != nil {
			dm.why[gnomon.CPU] = err.Error()
		}
	}
	for _, tap := range def.taps {
		if err := d.shape.Check(tap); err != nil && dm.why[gnomon.Network] == "" {
			dm.why[gnomon.Network] = err.Error()
		}
	}
	for r := range gnomon.AllResources() {
		if dm.why[r] == "" {
			dm.limits = dm.limits.With(r)
		}
	}
	if def.balloon && !def.polled {
		// Without statistics the memory's use stays unknown, nothing worse.
		_ = doOn(ctx, d, dm.live, func(l *lv.Libvirt) error { return l.DomainSetMemoryStatsPeriod(dom, 1, lv.DomainMemLive) })
	}
	return dm, nil
}

// goneOr returns ErrGone if the domain does not run any more, or not yet, else
// err.
func (d *Driver) goneOr(ctx context.Context, dom lv.Domain, err error) error {
	if err == nil || errors.Is(err, hypervisor.ErrGone) || errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if lv.IsNotFound(err) {
		return hypervisor.ErrGone
	}
	runs, stateErr := d.runs(ctx, dom)
	if stateErr == nil && !runs {
		return hypervisor.ErrGone
	}
	return err
}

// runs reports whether the domain is up: one that starts or shuts down is
// listed by libvirt, but cannot be worked with, and its lock may be held.
func (d *Driver) runs(ctx context.Context, dom lv.Domain) (bool, error) {
	return call(ctx, d, func(l *lv.Libvirt) (bool, error) {
		now, err := l.DomainLookupByUUID(dom.UUID)
		if lv.IsNotFound(err) || err == nil && (now.ID < 0 || dom.ID > 0 && now.ID != dom.ID) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		state, reason, err := l.DomainGetState(now, 0)
		switch {
		case lv.IsNotFound(err):
			return false, nil
		case err != nil:
			return false, err
		}
		return isUp(lv.DomainState(state), reason), nil
	})
}

func isUp(state lv.DomainState, reason int32) bool {
	switch state {
	case lv.DomainRunning, lv.DomainBlocked, lv.DomainPmsuspended:
		return true
	case lv.DomainPaused:
		return lv.DomainPausedReason(reason) != lv.DomainPausedStartingUp
	}
	return false
}

// lock waits for the right to change one resource of the domain.
func (dm *domain) lock(ctx context.Context, r gnomon.Resource) (unlock func(), err error) {
	select {
	case <-dm.busy[r]:
		return func() { dm.busy[r] <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another change of %s: %w", r, ctx.Err())
	}
}

func (dm *domain) vcpuCount() int {
	dm.mu.Lock()
	defer dm.mu.Unlock()
	return max(dm.vcpus, 1)
}

func (dm *domain) setVCPUs(n int) {
	dm.mu.Lock()
	defer dm.mu.Unlock()
	dm.vcpus = n
}
