package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// runLink keeps the link to the management server.
func (d *Daemon) runLink(ctx context.Context) {
	capacity, _ := ask(ctx, d, func() (map[string]int64, error) {
		return amountsByName(d.capacity), nil
	})
	d.link.Run(ctx, &serverpb.WatchRequest{
		Host: d.opt.Name, Version: d.opt.Version, Accel: d.opt.Accel, Capacity: capacity,
		TakesOrders: d.opt.Deployer != nil && d.opt.Mover != nil, MigrationUri: d.opt.MigrationURI,
	})
}

func (d *Daemon) serverStatus(status string) {
	if status != d.server {
		d.log.Info("server link", "status", status)
	}
	d.server, d.reported = status, ""
	for _, o := range d.orders {
		o.telling = false // what was told may be lost with the server
	}
}

// instructed takes over what the server wants.
func (d *Daemon) instructed(want desired) {
	if want.Revision < d.desired.Revision && d.server == hostlink.Connected {
		d.log.Info("server went back to an older state; following it", "from", d.desired.Revision, "to", want.Revision)
	}
	if reflect.DeepEqual(want, d.desired) {
		return // a server that was connected to again tells the same
	}
	d.desired = want
	if err := d.state.setDesired(want); err != nil {
		d.log.Warn("state not saved", "err", err)
	}
	// What is known takes effect now; the hypervisor may take its time to list.
	d.updateQuotas()
	for _, v := range d.sortedVMs() {
		d.reconfigure(v)
	}
	d.updateCapacity()
	d.reconcile()
}

// report tells the server which shadow belongs to which VM, what is free and
// what is predicted. What it has acknowledged is not told again.
func (d *Daemon) report() {
	if d.server != hostlink.Connected || d.reporting {
		return
	}
	req := d.associations()
	digest := digestOf(req)
	if d.shortReports && digest == d.reported {
		req = &serverpb.ReportRequest{Unchanged: true}
	}
	req.Host, req.Digest = d.opt.Name, digest
	req.Free, req.Predicted = amountsByName(d.spare()), amountsByName(d.predicted())
	req.Capacity = amountsByName(d.capacity)
	req.Needs = d.needs(req.GetPredicted())
	d.reporting = true
	go func() {
		err := d.link.Report(d.ctx, req)
		d.post(func() { d.delivered(digest, err) })
	}()
}

// delivered notes what became of a report.
func (d *Daemon) delivered(digest string, err error) {
	d.reporting = false
	switch {
	case err == nil:
		d.reported = digest
	case errors.Is(err, hostlink.ErrResend):
		d.reported = ""
		d.report()
	default:
		d.log.Debug("report not delivered", "err", err)
	}
}

// associations returns a report of the VMs and shadows that there are.
func (d *Daemon) associations() *serverpb.ReportRequest {
	req := &serverpb.ReportRequest{}
	for _, s := range d.sortedShadows() {
		if s.vm == "" {
			req.Warm = append(req.Warm, &serverpb.Account{Name: s.account, Shadow: s.warmState()})
			continue
		}
		a := &serverpb.Association{Vm: string(s.vm), Account: s.account, Shadow: s.name, ShadowState: s.state}
		if v := d.vms[s.vm]; v != nil {
			a.VmName, a.Account = v.machine.Name, v.machine.Account
		}
		req.Associations = append(req.Associations, a)
	}
	for _, v := range d.sortedVMs() {
		if v.shadow == nil {
			req.Associations = append(req.Associations, &serverpb.Association{
				Vm: string(v.machine.ID), VmName: v.machine.Name, Account: v.machine.Account, ShadowState: "none",
			})
		}
	}
	return req
}

// digestOf names what a report says.
func digestOf(r *serverpb.ReportRequest) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return "" // then the whole is told each time
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// predicted is what the VMs are forecast to need together within their
// horizons, each at its high quantile: rarely will all need that at once.
func (d *Daemon) predicted() gnomon.Resources {
	var sum gnomon.Resources
	for _, v := range d.vms {
		sum = sum.Add(v.needs())
	}
	return sum
}

// needs is what a VM is forecast to need at most within its horizon.
func (v *vm) needs() (n gnomon.Resources) {
	for r := range gnomon.AllResources() {
		n[r] = max(v.wants[r].High, v.last.Demand[r])
		if ceiling := v.bounds.ceiling[r]; ceiling > 0 {
			n[r] = min(n[r], ceiling)
		}
	}
	return n
}

// spare is what is free. Where capacity was taken away, more is allocated than
// there is, and nothing is free.
func (d *Daemon) spare() gnomon.Resources {
	free := d.totals().free
	for r := range free {
		free[r] = max(free[r], 0)
	}
	return free
}

// needsFrom is the part of a resource, in percent, from which the host tells what
// each VM is predicted to need: below it nobody asks.
const needsFrom = 70

// needs is what each VM is predicted to need, once that matters.
func (d *Daemon) needs(predicted map[string]int64) []*serverpb.VMNeeds {
	near := false
	for r := range gnomon.AllResources() {
		near = near || predicted[r.String()] > d.capacity[r]/100*needsFrom
	}
	if !near {
		return nil
	}
	var all []*serverpb.VMNeeds
	for _, v := range d.sortedVMs() {
		all = append(all, &serverpb.VMNeeds{Vm: string(v.machine.ID), Predicted: amountsByName(v.needs()), MemoryBytes: v.last.Allocation[gnomon.Memory]})
	}
	return all
}

func amountsByName(a gnomon.Resources) map[string]int64 {
	m := make(map[string]int64, gnomon.NumResources)
	for r := range gnomon.AllResources() {
		m[r.String()] = a[r]
	}
	return m
}
