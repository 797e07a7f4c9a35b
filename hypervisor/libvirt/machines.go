package libvirt

import (
	"context"
	"errors"
	"fmt"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Machines returns the running domains. One that starts is left out until it
// has started, one that ends as soon as it does. One that cannot be looked at
// now is told of as it was last, or left out if it never could be; only if that
// leaves none is there an error.
func (d *Driver) Machines(ctx context.Context) ([]hypervisor.Machine, error) {
	doms, err := call(ctx, d, func(l *lv.Libvirt) ([]lv.Domain, error) {
		doms, _, err := l.ConnectListAllDomains(1, lv.ConnectListDomainsActive)
		return doms, err
	})
	if err != nil {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	return d.list(ctx, doms, d.machine)
}

// listed is a domain as it was when last looked at.
type listed struct {
	id int32 // libvirt's: another one is another run
	hypervisor.Machine
}

func (d *Driver) list(ctx context.Context, doms []lv.Domain, look func(context.Context, lv.Domain) (hypervisor.Machine, error)) ([]hypervisor.Machine, error) {
	machines := make([]hypervisor.Machine, 0, len(doms))
	seen := make(map[lv.UUID]listed, len(doms))
	var failed []error
	for _, dom := range doms {
		m, err := look(ctx, dom)
		if errors.Is(err, hypervisor.ErrGone) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("look at VM %s: %w", dom.Name, err)
			if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
				return nil, err
			}
			failed = append(failed, err)
			last, ok := d.lastListed(dom)
			if !ok {
				continue
			}
			m = last
		}
		machines = append(machines, m)
		seen[dom.UUID] = listed{dom.ID, m}
	}
	if len(machines) == 0 && len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	d.mu.Lock()
	d.listed = seen
	d.mu.Unlock()
	return machines, nil
}

func (d *Driver) lastListed(dom lv.Domain) (hypervisor.Machine, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last, ok := d.listed[dom.UUID]
	return last.Machine, ok && last.id == dom.ID
}

func (d *Driver) machine(ctx context.Context, dom lv.Domain) (hypervisor.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// None of these calls needs the domain's lock, which may be held for long.
	m := hypervisor.Machine{ID: idOf(dom), Name: dom.Name}
	size, err := d.size(ctx, dom, &m)
	if err != nil {
		return m, d.goneOr(ctx, dom, err)
	}
	dm, err := d.known(ctx, dom)
	if err != nil {
		return m, err
	}
	m.ShadowOf, m.Account, m.Own = dm.def.shadowOf, dm.def.account, dm.def.own
	m.Limits, m.Why = dm.limits, dm.why
	m.Presence = d.presence(dm)
	m.Online, m.MaxVCPUs = m.VCPUs, m.VCPUs
	if dm.elastic() && len(m.Presence.VCPUs) > 0 {
		m.VCPUs, m.MaxVCPUs = len(m.Presence.VCPUs), dm.def.maxVCPUs // libvirt may be wrong
		if m.Online, err = dm.online(); err != nil {
			return m, d.goneOr(ctx, dom, fmt.Errorf("count vCPUs: %w", err))
		}
	}
	m.Original.VCPUs = m.VCPUs
	m.Max[gnomon.CPU] = int64(m.VCPUs) * 1000
	m.Max[gnomon.Memory] = dm.def.maxMemory
	for r := range gnomon.AllResources() {
		if r == gnomon.Memory && !dm.movedLately() && len(dm.def.plugs) == 0 {
			m.Original.Limits[r] = size
			continue
		}
		if m.Original.Limits[r], err = d.limit(ctx, dm, r); err != nil {
			return m, d.goneOr(ctx, dom, fmt.Errorf("read %s limit: %w", r, err))
		}
	}
	m.Memory = m.Original.Limits[gnomon.Memory]
	if dm.starts(m.Memory) {
		m.Original.Limits[gnomon.Memory] = dm.begins
	}
	if m.Original.Detail, err = d.detail(ctx, dm); err != nil {
		return m, d.goneOr(ctx, dom, err)
	}
	return m, nil
}

// size fills in what libvirt knows without asking QEMU, and returns the memory
// the guest has as last told.
func (d *Driver) size(ctx context.Context, dom lv.Domain, m *hypervisor.Machine) (memory int64, err error) {
	up, err := call(ctx, d, func(l *lv.Libvirt) (bool, error) {
		state, reason, err := l.DomainGetState(dom, 0)
		if err != nil {
			return false, fmt.Errorf("get state: %w", err)
		}
		_, _, kib, vcpus, _, err := l.DomainGetInfo(dom)
		if err != nil {
			return false, fmt.Errorf("get size: %w", err)
		}
		s := lv.DomainState(state)
		m.Paused = s == lv.DomainPaused || s == lv.DomainPmsuspended
		m.VCPUs, memory = int(vcpus), int64(kib)*1024
		return isUp(s, reason), nil
	})
	if err == nil && !up {
		err = hypervisor.ErrGone
	}
	return memory, err
}

// AccelOf returns what runs the VM's code: "kvm", or "qemu" for emulation.
func (d *Driver) AccelOf(ctx context.Context, id gnomon.VMID) (string, error) {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return "", err
	}
	return dm.def.accel, nil
}
