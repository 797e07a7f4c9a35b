package host

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// watch follows the hypervisor's lifecycle events for as long as ctx lives and
// has the loop look again at each.
func (d *Daemon) watch(ctx context.Context) {
	for ctx.Err() == nil {
		changes, err := d.opt.Driver.Watch(ctx)
		if err != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		for c := range changes {
			d.post(func() { d.changed(c) })
		}
	}
}

// changed handles one lifecycle event. What it means for a VM is read from the
// hypervisor, not from the event: events can be late or missed.
func (d *Daemon) changed(c hypervisor.Change) {
	d.log.Debug("hypervisor event", "kind", c.Kind, "vm", c.Name)
	switch c.Kind {
	case hypervisor.Stopped:
		d.gone(c.VM)
	case hypervisor.Resized:
		d.resized(c.VM)
		return
	}
	d.reconcile()
}

// reconcile lists the host's machines beside the loop, then takes VMs in,
// drops those that ended, and gives each the shadow it should have.
func (d *Daemon) reconcile() {
	if d.listing {
		d.listAgain = true
		return
	}
	d.listing = true
	outdated := d.outdated
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, 5*time.Second)
		defer cancel()
		machines, err := d.machines(ctx)
		d.post(func() {
			d.listing = false
			again := d.listAgain
			d.listAgain = false
			if err == nil && outdated != d.outdated {
				d.reconcile()
				return
			}
			d.listed(machines, err)
			d.tellListed(again)
			if again {
				d.reconcile()
			}
		})
	}()
}

// machines lists the VMs and the shadows that run.
func (d *Daemon) machines(ctx context.Context) ([]hypervisor.Machine, error) {
	vms, err := d.opt.Driver.Machines(ctx)
	if err != nil {
		return nil, err
	}
	shadows, err := d.opt.Shadows.Machines(ctx)
	return append(vms, shadows...), err
}

// tellListed tells those who wait for a list of the machines. If it is to be
// made again, they asked while this one was on its way, and wait for the next.
func (d *Daemon) tellListed(again bool) {
	if again {
		return
	}
	waiting := d.onListed
	d.onListed = nil
	for _, f := range waiting {
		f(d.hypervisor)
	}
}

func (d *Daemon) listed(machines []hypervisor.Machine, err error) {
	if d.stopping {
		return
	}
	if err != nil {
		if d.hypervisor == nil {
			d.log.Warn("hypervisor lost; VMs keep the limits they have", "err", err)
		}
		d.hypervisor = err
		return
	}
	if d.hypervisor != nil {
		d.log.Info("hypervisor is back")
		d.hypervisor = nil
	}
	slices.SortFunc(machines, func(a, b hypervisor.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
	running := make(map[gnomon.VMID]hypervisor.Machine, len(machines))
	for _, m := range machines {
		running[m.ID] = m
	}
	for _, id := range slices.Sorted(maps.Keys(d.seen)) {
		if _, ok := running[id]; !ok {
			d.gone(id)
		}
	}
	d.seen = running
	d.adoptShadows(machines)
	for _, m := range machines {
		if m.ShadowOf == "" {
			d.found(m)
		}
	}
	d.giveBack()
	d.placeShadows()
	d.resizeShadows()
	d.updateCapacity()
	d.updateQuotas()
	d.sweepStates()
	d.tellAssociated(false)
}

// wanted reports whether a VM is to be taken in: an explicit choice goes
// before the selection by name.
func (d *Daemon) wanted(m hypervisor.Machine) bool {
	if in, explicit := d.state.enrolled(m.ID); explicit {
		return in
	}
	return d.opt.Select.Matches(m.Name)
}

// found takes a running VM in, or notes what changed about it.
func (d *Daemon) found(m hypervisor.Machine) {
	v := d.vms[m.ID]
	switch {
	case v == nil && d.wanted(m):
		if !d.restoring[m.ID] { // else it is taken in with its own limits, after
			d.takeIn(m)
		}
	case v == nil:
		d.leave(m)
	case !d.wanted(m):
		d.release(v)
	default:
		m.Original = v.machine.Original // as first found
		v.machine = m
		v.notice(m)
		d.follow(v)
		d.reconfigure(v)
		d.renew(v)
		d.takeBack(v)
		d.note(v)
	}
}

// takeIn begins to manage a VM. Its limits as found are on disk before any of
// them is changed.
func (d *Daemon) takeIn(m hypervisor.Machine) {
	own, err := d.state.original(m)
	if err != nil {
		d.log.Error("VM left alone: its limits could not be noted", "vm", m.Name, "err", err)
		return
	}
	p := d.parameters(m)
	v := newVM(m, own, p, d.boundsOf(m, p), d.now)
	d.vms[m.ID] = v
	d.updateQuota(m.Account)
	d.step(gnomon.Event{Found: &gnomon.Found{
		VM: gnomon.VM{
			ID: m.ID, Name: m.Name, Account: m.Account,
			Floor: v.bounds.floor, Ceiling: v.bounds.ceiling, Limits: v.bounds.limits,
		},
		Policy:     policyOf(v.params),
		Allocation: allocationOf(m),
	}})
	d.follow(v)
	d.note(v)
	d.log.Info("VM taken in", "vm", m.Name, "id", m.ID, "policy", v.policyName(), "limits", limitNames(v.bounds.limits))
}

// allocationOf is what a VM has when it is found. Without a limit that is all
// its definition allows.
func allocationOf(m hypervisor.Machine) gnomon.Resources {
	a := gnomon.Resources(m.Original.Limits)
	a[gnomon.Memory] = m.Memory
	for r := range gnomon.AllResources() {
		if a[r] == hypervisor.Unlimited && m.Max[r] > 0 {
			a[r] = m.Max[r]
		}
	}
	return a
}

func limitNames(s gnomon.ResourceSet) string {
	var names []string
	for r := range gnomon.AllResources() {
		if s.Has(r) {
			names = append(names, r.String())
		}
	}
	return strings.Join(names, ",")
}

// gone drops a VM, or a shadow, that ended.
func (d *Daemon) gone(id gnomon.VMID) {
	d.outdated++
	delete(d.seen, id)
	delete(d.ending, id)
	d.shadowGone(id)
	v := d.vms[id]
	if v == nil {
		return
	}
	delete(d.vms, id)
	d.unfollow(id)
	d.step(gnomon.Event{Gone: &gnomon.Gone{VM: id}})
	if err := d.state.forget(id); err != nil {
		d.log.Warn("state not saved", "err", err)
	}
	if v.leaving {
		d.endShadowOfMoved(v)
	} else {
		d.endShadowOf(v)
	}
	d.log.Info("VM ended", "vm", v.machine.Name, "id", id)
}

// release gives a VM's limits back and leaves it alone.
func (d *Daemon) release(v *vm) {
	delete(d.vms, v.machine.ID)
	d.unfollow(v.machine.ID)
	d.step(gnomon.Event{Gone: &gnomon.Gone{VM: v.machine.ID}})
	d.endShadowOf(v)
	d.giveBack()
}

// giveBack restores the limits of the running VMs that are noted and not taken
// in: those just released, those that could not be restored before, and those
// that an earlier daemon had and this one is not to have. What is noted of VMs
// that ended is forgotten.
func (d *Daemon) giveBack() {
	for _, id := range slices.Sorted(maps.Keys(d.state.data.Originals)) {
		m, running := d.seen[id]
		switch {
		case d.vms[id] != nil || d.restoring[id] || d.noting[id]:
		case !running:
			if err := d.state.forget(id); err != nil {
				d.log.Warn("state not saved", "err", err)
			}
		default:
			d.restoreBeside(m, d.state.data.Originals[id].Original)
		}
	}
}

func (d *Daemon) restoreBeside(m hypervisor.Machine, own hypervisor.Original) {
	d.restoring[m.ID] = true
	d.limiting++
	go func() {
		err := restore(d.ctx, d.opt.Driver, m.ID, own)
		d.post(func() {
			d.limiting--
			d.outdated++ // the limits listed may be those from before
			delete(d.restoring, m.ID)
			d.restored(m.ID, m.Name, err)
			if d.wanted(m) {
				d.reconcile()
			}
		})
	}()
}

func (d *Daemon) restored(id gnomon.VMID, name string, err error) {
	if err != nil {
		d.log.Error("limits not restored", "vm", name, "err", err)
		return
	}
	if err := d.state.forget(id); err != nil {
		d.log.Warn("state not saved", "err", err)
	}
	d.log.Info("limits restored", "vm", name)
}

// reconfigure applies what the configuration, and the VM's definition, now say.
func (d *Daemon) reconfigure(v *vm) {
	p := d.parameters(v.machine)
	if p.OnOverride != config.Adopt {
		if err := d.state.disown(v.machine.ID); err != nil {
			d.log.Warn("state not saved", "err", err)
		}
	}
	before, b := v.params, d.boundsOf(v.machine, p)
	if p == before && b == v.bounds && v.account == v.machine.Account {
		return
	}
	v.params, v.bounds, v.account = p, b, v.machine.Account
	v.meter.OperationSize = p.OperationSize
	d.step(gnomon.Event{Policy: &gnomon.PolicyChanged{
		VM: v.machine.ID, Account: v.machine.Account, Policy: policyOf(p), Floor: v.bounds.floor, Ceiling: v.bounds.ceiling,
		Limits: v.bounds.limits,
	}})
	if p.MonitoringInterval != before.MonitoringInterval {
		v.due = d.now
	}
	if s := v.shadow; s != nil {
		s.settings(p)
	}
	d.renew(v)
	d.log.Info("configuration changed", "vm", v.machine.Name)
}

// updateCapacity tells the broker what the host may promise, if that changed.
func (d *Daemon) updateCapacity() {
	var shadows int64
	for _, s := range d.shadows {
		shadows += s.size.Memory
	}
	c := capacityOf(d.host, d.desired.parameters("", "", ""), shadows)
	if c == d.capacity {
		return
	}
	d.capacity = c
	d.step(gnomon.Event{Capacity: &gnomon.Capacity{Total: c}})
}

// updateQuotas tells the broker what the accounts of the VMs taken in may have
// ahead of demand, as far as that changed, and forgets those of others.
func (d *Daemon) updateQuotas() {
	accounts := map[string]bool{}
	for _, v := range d.vms {
		accounts[v.account] = true
	}
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		d.updateQuota(account)
	}
	for _, account := range slices.Sorted(maps.Keys(d.quotas)) {
		if !accounts[account] {
			d.setQuota(account, gnomon.Resources{})
		}
	}
}

func (d *Daemon) updateQuota(account string) {
	d.setQuota(account, d.desired.parameters(account, "", "").Quota)
}

func (d *Daemon) setQuota(account string, ahead gnomon.Resources) {
	if ahead == d.quotas[account] {
		return
	}
	d.quotas[account] = ahead
	if ahead == (gnomon.Resources{}) {
		delete(d.quotas, account)
	}
	d.step(gnomon.Event{Quota: &gnomon.Quota{Account: account, Ahead: ahead}})
}
