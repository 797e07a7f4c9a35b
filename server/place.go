package server

import (
	"errors"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/placement"
)

// place returns the host that is best for one more account, and why.
func (s *Server) place(v *view, labels map[string]string) (host, why string, err error) {
	if len(v.online) == 0 {
		return "", "", refuse(connect.CodeFailedPrecondition, "no host is connected to hold the account's shadow: start \"gnomon host\" on one first")
	}
	best, why, err := placement.Place(s.candidates(v, ""), placement.Request{Labels: labels})
	if errors.Is(err, placement.ErrNoHost) {
		return "", "", refuse(connect.CodeFailedPrecondition, "no host that is connected and not cordoned has the labels %s: see \"gnomon host ls\"", gnomon.FormatLabels(labels))
	}
	return best.Name, why, err
}

// candidates are the hosts that are connected, as placing sees them: for a VM
// of an account, or for an account that is new.
func (s *Server) candidates(v *view, account string) []placement.Host {
	var hosts []placement.Host
	for name := range v.online {
		if v.hosts[name] == nil {
			continue
		}
		n := v.notices[name]
		hosts = append(hosts, placement.Host{
			Name: name, Labels: n.Labels, Cordoned: n.Cordoned,
			Capacity: resources(s.capacityOf(v, name)), Taken: s.taken(v, name),
			Mates: v.mates(account, name), Accounts: len(v.designated[name]),
			Waits: v.accounts[account].GetHost() == name && v.warmth(v.accounts[account]) == "warm",
		})
	}
	return hosts
}

// mates is how many VMs of an account a host runs, or is about to.
func (v *view) mates(account, host string) int {
	if account == "" {
		return 0
	}
	n := v.spread[account][host]
	for _, o := range v.ordersFor(host) {
		if o.GetDeploy().GetAccount() == account {
			n++
		}
	}
	return n
}

// taken is what of a host is in use or predicted to be, whichever is more, with
// the shadows that accounts still wait for, and the VMs that it is to start.
func (s *Server) taken(v *view, host string) gnomon.Resources {
	capacity, free := s.capacityOf(v, host), s.freeOf(v, host)
	sum := resources(s.predictedOf(v, host))
	for r := range gnomon.AllResources() {
		if amount, ok := free[r.String()]; ok {
			sum[r] = max(sum[r], capacity[r.String()]-amount)
		}
	}
	p, _, _ := config.Merge(v.layers(scope{kind: config.Host, name: host})...)
	for name := range v.designated[host] {
		if v.warmth(v.accounts[name]) == "none" {
			sum[gnomon.CPU] += p.ShadowBase.CPU
			sum[gnomon.Memory] += p.ShadowBase.Memory
		}
	}
	for _, o := range v.ordersFor(host) {
		if !o.GetDeploy().GetValidateOnly() {
			sum = sum.Add(resources(o.GetDeploy().GetNeeds()))
		}
		sum = sum.Add(resources(o.GetReceive().GetHandover().GetNeeds()))
	}
	return sum
}

// resources reads amounts by name; those of unknown names are left out.
func resources(m map[string]int64) (a gnomon.Resources) {
	for r := range gnomon.AllResources() {
		a[r] = m[r.String()]
	}
	return a
}

// capacityOf is what a host may promise, as last heard here, else as stored.
func (s *Server) capacityOf(v *view, host string) map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[host]; l != nil && len(l.capacity) > 0 {
		return l.capacity
	}
	if c := v.reports[host].GetCapacity(); len(c) > 0 {
		return c
	}
	return v.hosts[host].GetCapacity()
}

// freeOf is what is free on a host, as last heard here, else as stored.
func (s *Server) freeOf(v *view, host string) map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[host]; l != nil && l.free != nil {
		return l.free
	}
	return v.reports[host].GetFree()
}

// predictedOf is likewise what a host's VMs are predicted to need.
func (s *Server) predictedOf(v *view, host string) map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[host]; l != nil && l.predicted != nil {
		return l.predicted
	}
	return v.reports[host].GetPredicted()
}
