package server

import (
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// of returns what the view has of one account, for a caller that is to see no
// other: its VMs wherever they run, and the configuration that holds for them.
func (v *view) of(account string) *view {
	o := newView()
	o.epoch, o.revision, o.guard, o.version, o.global = v.epoch, v.revision, v.guard, v.version, v.global
	a, ok := v.accounts[account]
	if !ok {
		return o
	}
	o.takeAccount(account, a)
	if l, ok := v.byAccount[account]; ok {
		o.byAccount[account] = l
	}
	for _, host := range v.hostsOf(account) {
		if o.reports[host] != nil {
			continue // the designated one is named twice
		}
		own := &serverpb.ReportRequest{Host: host}
		for _, a := range v.reports[host].GetAssociations() {
			if a.GetAccount() != account {
				continue
			}
			own.Associations = append(own.Associations, proto.CloneOf(a))
			if l, ok := v.byVM[a.GetVm()]; ok {
				o.byVM[a.GetVm()] = l
			}
		}
		for _, w := range v.reports[host].GetWarm() {
			if w.GetName() == account {
				own.Warm = append(own.Warm, proto.CloneOf(w))
			}
		}
		o.takeReport(host, own)
		if p, ok := v.online[host]; ok {
			o.online[host] = p
		}
		if l, ok := v.byHost[host]; ok {
			o.byHost[host] = l
		}
	}
	return o
}
