package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/placement"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// rest is how long a VM that was moved stays where it is.
const rest = 10 * time.Minute

// Advise implements ManagementService.
func (s *Server) Advise(ctx context.Context, req *connect.Request[serverpb.AdviseRequest]) (*connect.Response[serverpb.AdviseResponse], error) {
	r := &serverpb.AdviseResponse{}
	err := s.read(ctx, func(v *view) error {
		if req.Msg.GetUndo() {
			r.Moves = v.takeBack()
			return nil
		}
		r.Id = rand.Text()[:10]
		peak := map[string]gnomon.Resources{}
		hosts := s.candidates(v, "")
		for i, h := range hosts {
			peak[h.Name] = resources(s.predictedOf(v, h.Name))
			if record := v.hosts[h.Name]; !record.GetTakesOrders() || record.GetMigrationUri() == "" {
				hosts[i].Cordoned = true // nothing can be moved there
			}
		}
		advice := placement.Relieve(hosts, peak, s.guests(v))
		for _, m := range advice.Moves {
			r.Moves = append(r.Moves, &serverpb.AdvisedMove{Vm: m.Guest.ID, VmName: m.Guest.Name, FromHost: m.Guest.Host, ToHost: m.To, Why: m.Why})
		}
		r.Unsolved = advice.Unsolved
		return nil
	})
	return respond(r, err)
}

// guests are the VMs on hosts that tell what each needs.
func (s *Server) guests(v *view) []placement.Guest {
	stays := v.staying(time.Now())
	var all []placement.Guest
	for host := range v.online {
		needs := map[string]*serverpb.VMNeeds{}
		for _, n := range s.needsOf(v, host) {
			needs[n.GetVm()] = n
		}
		for _, a := range v.reports[host].GetAssociations() {
			n, told := needs[a.GetVm()]
			if at, _ := v.vm(a.GetVm()); !told || at.host != host {
				continue
			}
			why := stays[a.GetVm()]
			if !v.hosts[host].GetTakesOrders() {
				why = "its host moves no VMs"
			}
			all = append(all, placement.Guest{
				ID: a.GetVm(), Name: cmp.Or(a.GetVmName(), a.GetVm()), Host: host, Needs: resources(n.GetPredicted()), Memory: n.GetMemoryBytes(),
				Labels: v.accounts[a.GetAccount()].GetHostLabels(), Mates: v.spread[a.GetAccount()], Stays: why,
			})
		}
	}
	return all
}

// needsOf is what the VMs of a host need, as last heard here, else as stored.
func (s *Server) needsOf(v *view, host string) []*serverpb.VMNeeds {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[host]; l != nil && l.predicted != nil {
		return l.needs
	}
	return v.reports[host].GetNeeds()
}

// staying tells which VMs are not to be moved, and why.
func (v *view) staying(now time.Time) map[string]string {
	stays := map[string]string{}
	for _, o := range v.orders {
		m := o.GetOrder().GetMove()
		switch {
		case m == nil:
		case o.Outcome == nil:
			stays[m.GetVm()] = "it is being moved"
		case o.GetOutcome().GetError() == "" && now.Sub(time.Unix(0, o.GetSettledUnixNano())) < rest:
			stays[m.GetVm()] = "it was moved just now"
		}
	}
	return stays
}

// takeBack tells how to take the latest advice back that was followed: the moves
// made by it, the latest first, of the VMs that are still where they went.
func (v *view) takeBack() []*serverpb.AdvisedMove {
	latest := func(a, b *serverpb.OrderRecord) int {
		return cmp.Or(cmp.Compare(b.GetSettledUnixNano(), a.GetSettledUnixNano()), cmp.Compare(a.GetOrder().GetId(), b.GetOrder().GetId()))
	}
	advice := ""
	var back []*serverpb.AdvisedMove
	for _, o := range slices.SortedFunc(maps.Values(v.orders), latest) {
		m := o.GetOrder().GetMove()
		if m.GetAdvice() == "" || o.Outcome == nil || o.GetOutcome().GetError() != "" {
			continue
		}
		if advice == "" {
			advice = m.GetAdvice()
		}
		if at, _ := v.vm(m.GetVm()); m.GetAdvice() == advice && at.host == m.GetToHost() {
			back = append(back, &serverpb.AdvisedMove{Vm: m.GetVm(), VmName: m.GetVmName(), FromHost: m.GetToHost(), ToHost: o.GetHost(),
				Why: fmt.Sprintf("it was on %s until %s", o.GetHost(), time.Unix(0, o.GetSettledUnixNano()).UTC().Format(time.DateTime))})
		}
	}
	return back
}
