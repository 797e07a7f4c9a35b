package server

import (
	"cmp"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
)

// place returns the host that is best for one more account, and why: of those
// connected, not cordoned and with the labels, the one with the smallest part
// of its CPU or memory in use or predicted to be, counting the shadows that
// accounts still wait for.
func (s *Server) place(v *view, labels map[string]string) (host, why string, err error) {
	if len(v.online) == 0 {
		return "", "", refuse(connect.CodeFailedPrecondition, "no host is connected to hold the account's shadow: start \"gnomon host\" on one first")
	}
	var names []string
	for name := range v.online {
		if _, ok := v.hosts[name]; ok && !v.notices[name].Cordoned && v.notices[name].has(labels) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", "", refuse(connect.CodeFailedPrecondition, "no host that is connected and not cordoned has the labels %s: see \"gnomon host ls\"", formatLabels(labels))
	}
	loads := make(map[string]float64, len(names))
	for _, name := range names {
		loads[name] = v.load(name, s.freeOf(v, name), s.predictedOf(v, name))
	}
	best := slices.MinFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(loads[a], loads[b]), cmp.Compare(len(v.designated[a]), len(v.designated[b])), cmp.Compare(a, b))
	})
	return best, fmt.Sprintf("%.0f%% of it is in use or predicted to be, the least of %d hosts", 100*loads[best], len(names)), nil
}

// load is the part of a host's CPU or memory, whichever is more, in use or
// predicted to be.
func (v *view) load(host string, free, predicted map[string]int64) float64 {
	var waiting int64
	for name := range v.designated[host] {
		if v.warmth(v.accounts[name]) == "none" {
			waiting++
		}
	}
	p, _, _ := config.Merge(v.layers(scope{kind: config.Host, name: host})...)
	worst := 0.0
	for r, shadow := range map[gnomon.Resource]int64{gnomon.CPU: p.ShadowBase.CPU, gnomon.Memory: p.ShadowBase.Memory} {
		capacity := v.hosts[host].GetCapacity()[r.String()]
		if capacity <= 0 {
			continue
		}
		used := predicted[r.String()]
		if amount, ok := free[r.String()]; ok {
			used = max(used, capacity-amount)
		}
		used += waiting * shadow
		worst = max(worst, float64(used)/float64(capacity))
	}
	return worst
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
