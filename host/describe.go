package host

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

func (d *Daemon) sortedVMs() []*vm {
	out := make([]*vm, 0, len(d.vms))
	for _, v := range d.vms {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *vm) int { return strings.Compare(a.machine.Name, b.machine.Name) })
	return out
}

func (d *Daemon) sortedSeen() []hypervisor.Machine {
	out := make([]hypervisor.Machine, 0, len(d.seen))
	for _, m := range d.seen {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b hypervisor.Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (d *Daemon) sortedShadows() []*shadowVM {
	out := make([]*shadowVM, 0, len(d.shadows))
	for _, s := range d.shadows {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *shadowVM) int { return strings.Compare(a.name, b.name) })
	return out
}

// describe returns what the API tells of a running VM.
func (d *Daemon) describe(m hypervisor.Machine) *hostpb.VM {
	out := &hostpb.VM{Id: string(m.ID), Name: m.Name, Account: m.Account, State: "running"}
	if m.Paused {
		out.State = "paused"
	}
	v := d.vms[m.ID]
	if v == nil {
		return out
	}
	out.Enrolled, out.Policy, out.Priority = true, v.policyName(), v.params.Priority
	if v.shadow != nil {
		out.Shadow = v.shadow.name
	}
	out.Resources, out.Stats = d.resourceStates(v), d.stats(v)
	return out
}

func (d *Daemon) resourceStates(v *vm) []*hostpb.ResourceState {
	st, _ := d.broker.View(v.machine.ID)
	out := make([]*hostpb.ResourceState, 0, gnomon.NumResources)
	for r := range gnomon.AllResources() {
		want := v.wants[r]
		state := &hostpb.ResourceState{
			Resource: r.String(), Unit: r.Unit(),
			Limited: v.bounds.limits.Has(r), WhyNot: v.bounds.why[r],
			Usage: v.last.Usage[r], Demand: v.last.Demand[r],
			ForecastMedian: want.Median, ForecastHigh: want.High, Model: want.Model,
			Floor: v.bounds.floor[r], Ceiling: v.bounds.ceiling[r],
		}
		if rs := st.Resources[r]; rs != nil {
			state.Allocation, state.Reservation = rs.Allocated, rs.Reserved
			state.Hits, state.Misses = int64(rs.Hits), int64(rs.Misses)
		}
		out = append(out, state)
	}
	return out
}

// stats returns what was counted for a VM since it was taken in.
func (d *Daemon) stats(v *vm) *hostpb.VMStats {
	st, _ := d.broker.View(v.machine.ID)
	out := &hostpb.VMStats{}
	for r := range gnomon.AllResources() {
		rs := &hostpb.ResourceStats{Resource: r.String()}
		if c := st.Resources[r]; c != nil {
			rs.Requested, rs.Granted, rs.Partial, rs.Denied = int64(c.Requested), int64(c.Granted), int64(c.Partial), int64(c.Denied)
			rs.Expired, rs.Revoked = int64(c.Expired), int64(c.Revoked)
			rs.Hits, rs.Misses = int64(c.Hits), int64(c.Misses)
			rs.WasteUnitMs = int64(c.Waste * 1000)
		}
		rs.Handovers = v.handovers[r].count
		for _, took := range v.handovers[r].latest(0) {
			rs.HandoverNs = append(rs.HandoverNs, int64(took))
		}
		out.Resources = append(out.Resources, rs)
	}
	return out
}

// explain tells in a sentence or two per resource why a VM has what it has.
func (d *Daemon) explain(v *vm) []string {
	st, _ := d.broker.View(v.machine.ID)
	var out []string
	if v.shadow == nil && v.params.ShadowEnabled {
		out = append(out, "It has no shadow at the moment, so the standard path alone serves it.")
	}
	if !v.params.ShadowEnabled {
		out = append(out, "Shadows are switched off for it (shadow.enabled): the standard path alone serves it.")
	}
	latest, ahead := v.decisions.latest(0), d.ahead()[v.account]
	for r := range gnomon.AllResources() {
		rs := st.Resources[r]
		if rs == nil {
			out = append(out, fmt.Sprintf("%s is not limited: %s.", r, v.bounds.why[r]))
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s: it uses %s%s and would take %s; it has %s", r,
			gnomon.Format(r, v.last.Usage[r]), v.operations(r), gnomon.Format(r, v.last.Demand[r]), gnomon.Format(r, rs.Allocated))
		if rs.Reserved > 0 {
			fmt.Fprintf(&b, " and %s more reserved", gnomon.Format(r, rs.Reserved))
		}
		fmt.Fprintf(&b, " (between %s and %s).", gnomon.Format(r, v.bounds.floor[r]), gnomon.Format(r, v.bounds.ceiling[r]))
		if w := v.wants[r]; w.Model != "" {
			fmt.Fprintf(&b, " Foreseen over %v: %s likely, up to %s (model %s).", v.params.PredictionHorizon,
				gnomon.Format(r, w.Median), gnomon.Format(r, w.High), w.Model)
		}
		if quota := d.quotas[v.account][r]; quota > 0 && ahead[r] >= quota {
			fmt.Fprintf(&b, " Its account's VMs have all that the quota of %s allows ahead of demand.", gnomon.Format(r, quota))
		}
		b.WriteString(v.overrides[r].explain(d))
		if r == gnomon.CPU {
			b.WriteString(v.explainVCPUs())
		}
		if dec, ok := lastChange(latest, r); ok {
			fmt.Fprintf(&b, " Last change %s ago: %s, %s.", d.now.Sub(dec.At).Round(time.Second), dec.Kind, dec.Reason)
		}
		out = append(out, b.String())
	}
	return out
}

// operations tells how many of a disk's operations its use stands for, if they
// count.
func (v *vm) operations(r gnomon.Resource) string {
	if r != gnomon.Disk || v.params.OperationSize == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d operations a second, each of which counts as %s at least)",
		v.last.Operations, gnomon.Format(gnomon.Memory, v.params.OperationSize))
}

func lastChange(latest []gnomon.Decision, r gnomon.Resource) (gnomon.Decision, bool) {
	for _, dec := range slices.Backward(latest) {
		switch dec.Kind {
		case gnomon.DecideHandover, gnomon.DecideGrow, gnomon.DecideShrink, gnomon.DecideReclaim:
			if dec.Resource == r {
				return dec, true
			}
		}
	}
	return gnomon.Decision{}, false
}

func decisionPB(dec gnomon.Decision) *hostpb.Decision {
	return &hostpb.Decision{
		AtUnixNano: dec.At.UnixNano(), Resource: dec.Resource.String(), Kind: string(dec.Kind),
		Amount: dec.Amount, From: dec.From, To: dec.To,
		Verdict: string(dec.Verdict), Reason: dec.Reason, Reservation: dec.Reservation,
	}
}

func amountsPB(r gnomon.Resources) *hostpb.Amounts {
	return &hostpb.Amounts{
		CpuMillicores: r[gnomon.CPU], MemoryBytes: r[gnomon.Memory],
		DiskBytesPerSecond: r[gnomon.Disk], NetworkBytesPerSecond: r[gnomon.Network],
	}
}

func (d *Daemon) pressurePB() *hostpb.Pressure {
	if d.opt.Pressure == nil {
		return &hostpb.Pressure{Source: "none"}
	}
	out := &hostpb.Pressure{Source: d.opt.Pressure.Name()}
	for r := range gnomon.AllResources() {
		if d.opt.Pressure.Resources().Has(r) {
			out.Resources = append(out.Resources, r.String())
		}
	}
	if d.opt.PressureWhy != nil {
		out.WhyNotBetter = d.opt.PressureWhy.Error()
	}
	return out
}

// selfCost returns the daemon's own CPU time and proportional memory.
func selfCost() (cpuNs, memory int64) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err == nil {
		cpuNs = ru.Utime.Nano() + ru.Stime.Nano()
	}
	memory, _ = shadow.PSS(os.Getpid())
	return cpuNs, memory
}

// ahead returns what each account has ahead of demand.
func (d *Daemon) ahead() map[string]gnomon.Resources {
	sums := map[string]gnomon.Resources{}
	for _, v := range d.broker.VMs() {
		sum := sums[v.VM.Account]
		for r, s := range v.Resources {
			if s != nil {
				sum[r] += s.Reserved + s.Prepared
			}
		}
		sums[v.VM.Account] = sum
	}
	return sums
}

// quotasPB tells the quotas in force, and what accounts have of them.
func (d *Daemon) quotasPB() (out []*hostpb.Quota) {
	ahead := d.ahead()
	for _, account := range slices.Sorted(maps.Keys(d.quotas)) {
		out = append(out, &hostpb.Quota{Account: account, Quota: amountsPB(d.quotas[account]), Ahead: amountsPB(ahead[account])})
	}
	return out
}

// totals are the host's balance, by resource.
type totals struct {
	allocated, reserved, free gnomon.Resources
}

func (d *Daemon) totals() totals {
	var t totals
	for r, total := range d.broker.Totals() {
		t.allocated[r], t.reserved[r], t.free[r] = total.Allocated, total.Reserved, total.Free
	}
	return t
}
