package server

import (
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// concern is the hosts that a change of the store may matter to, by what they
// are to run or by who serves them.
type concern struct {
	all   bool
	hosts map[string]bool
}

func (c *concern) add(hosts ...string) {
	if c.hosts == nil {
		c.hosts = map[string]bool{}
	}
	for _, h := range hosts {
		c.hosts[h] = true
	}
}

// apply takes one change of the store in and adds to c whom it concerns.
func (v *view) apply(e *clientv3.Event, c *concern) error {
	key := string(e.Kv.Key)
	change := func() error {
		if e.Type == clientv3.EventTypeDelete {
			v.remove(key)
			return nil
		}
		return v.put(e.Kv)
	}
	k, name, _ := kindOf(key)
	switch k.prefix {
	case reportPrefix:
		return v.applyReport(name, c, change)
	case accountPrefix:
		c.add(v.accounts[name].GetHost())
		err := change()
		c.add(v.accounts[name].GetHost())
		return err
	case orderPrefix:
		c.add(v.orders[name].GetHost())
		err := change()
		c.add(v.orders[name].GetHost())
		return err
	case onlinePrefix, hostConfig, identityPrefix:
		c.add(name)
	case accountConfig, vmConfig:
		few := v.few()
		err := change()
		switch {
		case few || v.few():
			c.all = true
		case k.prefix == accountConfig:
			c.add(v.hostsOf(name)...)
		default:
			c.add(v.where[name]...)
		}
		return err
	}
	c.all = c.all || key == globalKey
	return change()
}

// applyReport takes a host's report in. It is news to the host itself, and to all
// where VMs have come or gone that every host knows the layers of.
func (v *view) applyReport(host string, c *concern, change func() error) error {
	before := v.reports[host]
	err := change()
	after := v.reports[host]
	c.add(host)
	if v.few() && !slices.Equal(v.layered(before), v.layered(after)) {
		c.all = true
	}
	return err
}

// layered returns the VMs of a report that have a layer of their own.
func (v *view) layered(r *serverpb.ReportRequest) []string {
	var ids []string
	if len(v.byVM) == 0 {
		return nil
	}
	for _, a := range r.GetAssociations() {
		if _, ok := v.byVM[a.GetVm()]; ok {
			ids = append(ids, a.GetVm())
		}
	}
	return ids
}

// hostsOf returns the hosts that an account's layer matters to.
func (v *view) hostsOf(account string) []string {
	hosts := make([]string, 0, len(v.spread[account])+1)
	for h := range v.spread[account] {
		hosts = append(hosts, h)
	}
	if a := v.accounts[account]; a != nil {
		hosts = append(hosts, a.GetHost())
	}
	return hosts
}
