package server

import (
	"iter"
	"maps"
	"slices"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// everywhere is how many layers of accounts and VMs every host is told of: a VM
// that comes up then finds its own there. Of more than that, a host is told
// those that matter to it, and of a VM that is new there once it has reported
// it.
const everywhere = 100

// few tells whether every host knows all layers but those of VMs elsewhere.
func (v *view) few() bool { return len(v.byAccount)+len(v.byVM) <= everywhere }

// desired returns what a host is to run, as of the view.
func (v *view) desired(host string) *serverpb.DesiredState {
	d := &serverpb.DesiredState{
		Revision:     v.revision,
		Epoch:        v.epoch,
		Accounts:     slices.Sorted(maps.Keys(v.designated[host])),
		Global:       v.global.Values,
		Host:         v.byHost[host].Values,
		ByAccount:    map[string]*serverpb.Layer{},
		ByVm:         map[string]*serverpb.Layer{},
		ShortReports: true,
		Orders:       v.ordersFor(host),
	}
	addAccount := func(name string) {
		if l, ok := v.byAccount[name]; ok {
			d.ByAccount[name] = &serverpb.Layer{Values: l.Values}
		}
	}
	addVM := func(id string) {
		if l, ok := v.byVM[id]; ok {
			d.ByVm[id] = &serverpb.Layer{Values: l.Values}
		}
	}
	for _, name := range d.Accounts {
		addAccount(name)
	}
	for _, a := range v.reports[host].GetAssociations() {
		addVM(a.GetVm())
		addAccount(a.GetAccount())
	}
	if v.few() {
		for name := range v.byAccount {
			addAccount(name)
		}
		for id := range v.byVM {
			if len(v.where[id]) == 0 {
				addVM(id)
			}
		}
	}
	return d
}

// vm is a VM that a host reports.
type vm struct{ id, name, account, host string }

// vm returns what is reported of a VM. One that two hosts report counts where
// the host is connected.
func (v *view) vm(id string) (found vm, known bool) {
	for _, host := range v.where[id] {
		if _, connected := v.online[host]; known && !connected {
			continue
		}
		for _, a := range v.reports[host].GetAssociations() {
			if a.GetVm() == id {
				found, known = vm{id: id, name: a.GetVmName(), account: a.GetAccount(), host: host}, true
			}
		}
	}
	return found, known
}

// vms returns every VM reported, each once, in no order.
func (v *view) vms() iter.Seq[vm] {
	return func(yield func(vm) bool) {
		for host, r := range v.reports {
			for _, a := range r.GetAssociations() {
				m := vm{id: a.GetVm(), name: a.GetVmName(), account: a.GetAccount(), host: host}
				if len(v.where[m.id]) > 1 {
					if at, _ := v.vm(m.id); at != m {
						continue
					}
				}
				if !yield(m) {
					return
				}
			}
		}
	}
}
