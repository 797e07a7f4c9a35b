package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
)

// API is the hypervisor API of this host, for mounting on a local socket.
type API struct {
	d *Daemon
}

var _ hostpbconnect.HostServiceHandler = API{}

// API returns the daemon's API.
func (d *Daemon) API() API { return API{d} }

func notFound(format string, args ...any) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf(format, args...))
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

// machine finds a running VM by id or name, shadows left out.
func (d *Daemon) machine(ref string) (hypervisor.Machine, error) {
	if ref == "" {
		return hypervisor.Machine{}, invalid("vm: empty: give a name or an id")
	}
	var found []hypervisor.Machine
	for _, m := range d.seen {
		if m.ShadowOf != "" {
			continue
		}
		if string(m.ID) == ref {
			return m, nil
		}
		if m.Name == ref {
			found = append(found, m)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return hypervisor.Machine{}, notFound("vm %q: no running VM of that name or id; see \"gnomon vm ls --all\"", ref)
}

// managed finds a VM that is taken in.
func (d *Daemon) managed(ref string) (*vm, error) {
	m, err := d.machine(ref)
	if err != nil {
		return nil, err
	}
	v := d.vms[m.ID]
	if v == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("vm %q is not taken in: \"gnomon vm enroll %s\" does that", ref, ref))
	}
	return v, nil
}

// respond returns a response, or the error that came instead.
func respond[T any](res *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

// ListVMs implements the API.
func (a API) ListVMs(ctx context.Context, req *connect.Request[hostpb.ListVMsRequest]) (*connect.Response[hostpb.ListVMsResponse], error) {
	res, err := ask(ctx, a.d, func() (*hostpb.ListVMsResponse, error) {
		res := &hostpb.ListVMsResponse{}
		for _, m := range a.d.sortedSeen() {
			if m.ShadowOf != "" || (a.d.vms[m.ID] == nil && !req.Msg.GetAll()) {
				continue
			}
			res.Vms = append(res.Vms, a.d.describe(m))
		}
		return res, nil
	})
	return respond(res, err)
}

// EnrollVM implements the API.
func (a API) EnrollVM(ctx context.Context, req *connect.Request[hostpb.EnrollVMRequest]) (*connect.Response[hostpb.EnrollVMResponse], error) {
	return connect.NewResponse(&hostpb.EnrollVMResponse{}), a.choose(ctx, req.Msg.GetVm(), true)
}

// ReleaseVM implements the API.
func (a API) ReleaseVM(ctx context.Context, req *connect.Request[hostpb.ReleaseVMRequest]) (*connect.Response[hostpb.ReleaseVMResponse], error) {
	return connect.NewResponse(&hostpb.ReleaseVMResponse{}), a.choose(ctx, req.Msg.GetVm(), false)
}

func (a API) choose(ctx context.Context, ref string, in bool) error {
	d := a.d
	answer, err := ask(ctx, d, func() (<-chan error, error) {
		if d.stopping {
			return nil, errStopping
		}
		m, err := d.machine(ref)
		if err != nil {
			return nil, err
		}
		if err := d.state.enroll(m.ID, in); err != nil {
			return nil, err
		}
		answer := make(chan error, 1)
		if !in || d.vms[m.ID] != nil {
			d.found(m)
			d.placeShadows()
			answer <- nil
			return answer, nil
		}
		// The limits that were listed before may have changed: it is taken in
		// with those it has now.
		d.onListed = append(d.onListed, func(err error) { answer <- d.enrolled(m.ID, ref, err) })
		d.reconcile()
		return answer, nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-d.done:
		return errStopping
	}
}

// enrolled returns what became of a VM that was enrolled before the machines
// were listed, with an error or without.
func (d *Daemon) enrolled(id gnomon.VMID, ref string, err error) error {
	_, runs := d.seen[id]
	switch {
	case d.vms[id] != nil || d.restoring[id]:
		return nil
	case err != nil:
		return fmt.Errorf("vm %q is taken in once the hypervisor answers: %w", ref, err)
	case !runs:
		return notFound("vm %q ended", ref)
	}
	return fmt.Errorf("vm %q is not taken in: its limits could not be noted; see the daemon's log", ref)
}

// ExplainVM implements the API.
func (a API) ExplainVM(ctx context.Context, req *connect.Request[hostpb.ExplainVMRequest]) (*connect.Response[hostpb.ExplainVMResponse], error) {
	res, err := ask(ctx, a.d, func() (*hostpb.ExplainVMResponse, error) {
		m, err := a.d.machine(req.Msg.GetVm())
		if err != nil {
			return nil, err
		}
		res := &hostpb.ExplainVMResponse{Vm: a.d.describe(m)}
		v := a.d.vms[m.ID]
		if v == nil {
			res.Summary = []string{"The VM is not taken in: gnomon neither reads nor limits it."}
			return res, nil
		}
		n := int(req.Msg.GetDecisions())
		if n <= 0 {
			n = 20
		}
		res.Summary = a.d.explain(v)
		for _, dec := range v.decisions.latest(n) {
			res.Decisions = append(res.Decisions, decisionPB(dec))
		}
		return res, nil
	})
	return respond(res, err)
}

// maxLifetime bounds what an API caller may ask.
const maxLifetime = 10 * time.Minute

// RequestPreallocation implements the API.
func (a API) RequestPreallocation(ctx context.Context, req *connect.Request[hostpb.RequestPreallocationRequest]) (*connect.Response[hostpb.RequestPreallocationResponse], error) {
	m := req.Msg
	lifetime, needIn := time.Duration(m.GetLifetimeNs()), time.Duration(m.GetNeedInNs())
	if lifetime <= 0 || lifetime > maxLifetime {
		return nil, invalid("lifetime %v: want more than 0 and at most %v", lifetime, maxLifetime)
	}
	if needIn < 0 || needIn > lifetime {
		return nil, invalid("need_in %v: want 0 to the lifetime (%v)", needIn, lifetime)
	}
	g, err := a.request(ctx, m.GetVm(), m.GetResource(), m.GetLevel(), func(v *vm, r gnomon.Resource, seq uint64) gnomon.Event {
		return gnomon.Event{Proposed: &gnomon.Proposal{
			VM: v.machine.ID, Session: gnomon.APISession, Seq: seq, At: a.d.now,
			Wants: []gnomon.Want{{Resource: r, Low: m.GetLevel(), Median: m.GetLevel(), High: m.GetLevel(),
				Level: m.GetLevel(), NeedIn: needIn, Lifetime: lifetime, Model: "api"}},
		}}
	})
	if err != nil {
		return nil, err
	}
	res := &hostpb.RequestPreallocationResponse{Verdict: string(g.Verdict), Got: g.Got, Reason: g.Reason}
	if !g.Expires.IsZero() {
		res.ExpiresUnixNano = g.Expires.UnixNano()
	}
	return connect.NewResponse(res), nil
}

// RequestResources implements the API.
func (a API) RequestResources(ctx context.Context, req *connect.Request[hostpb.RequestResourcesRequest]) (*connect.Response[hostpb.RequestResourcesResponse], error) {
	m := req.Msg
	g, err := a.request(ctx, m.GetVm(), m.GetResource(), m.GetLevel(), func(v *vm, r gnomon.Resource, seq uint64) gnomon.Event {
		var levels gnomon.Resources
		levels[r] = m.GetLevel()
		return gnomon.Event{Demanded: &gnomon.Demanded{VM: v.machine.ID, Seq: seq, Levels: levels}}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&hostpb.RequestResourcesResponse{Verdict: string(g.Verdict), Got: g.Got, Reason: g.Reason}), nil
}

// request hands one VM's request for one resource to the broker and returns
// its grant. The broker answers at once, so nothing is waited for.
func (a API) request(ctx context.Context, ref, resource string, level int64, event func(*vm, gnomon.Resource, uint64) gnomon.Event) (gnomon.Grant, error) {
	r, err := gnomon.ParseResource(resource)
	if err != nil {
		return gnomon.Grant{}, invalid("resource: %w", err)
	}
	if level <= 0 {
		return gnomon.Grant{}, invalid("level %d: want more than 0 %s", level, r.Unit())
	}
	return ask(ctx, a.d, func() (gnomon.Grant, error) {
		v, err := a.d.managed(ref)
		if err != nil {
			return gnomon.Grant{}, err
		}
		if !v.bounds.limits.Has(r) {
			return gnomon.Grant{}, connect.NewError(connect.CodeFailedPrecondition,
				fmt.Errorf("%s of vm %q cannot be limited: %s", r, ref, v.bounds.why[r]))
		}
		a.d.seq++
		seq := a.d.seq
		for _, ans := range a.d.step(event(v, r, seq)).Answers {
			if ans.VM == v.machine.ID && ans.Seq == seq && len(ans.Grants) > 0 {
				return ans.Grants[0], nil
			}
		}
		return gnomon.Grant{}, connect.NewError(connect.CodeInternal, fmt.Errorf("the broker gave no answer"))
	})
}

// Status implements the API.
func (a API) Status(ctx context.Context, _ *connect.Request[hostpb.StatusRequest]) (*connect.Response[hostpb.StatusResponse], error) {
	res, err := ask(ctx, a.d, func() (*hostpb.StatusResponse, error) {
		d := a.d
		totals := d.totals()
		res := &hostpb.StatusResponse{
			Version: d.opt.Version, Host: d.opt.Name, Accel: d.opt.Accel,
			Hypervisor: "connected", Server: d.server, History: "none",
			StartedUnixNano: d.started.UnixNano(),
			Capacity:        amountsPB(d.capacity), Allocated: amountsPB(totals.allocated),
			Reserved: amountsPB(totals.reserved), Free: amountsPB(totals.free),
			Pressure: d.pressurePB(), Quotas: d.quotasPB(),
		}
		if d.hypervisor != nil {
			res.Hypervisor = strings.TrimSpace(d.hypervisor.Error())
		}
		if d.opt.Writer != nil {
			res.History = d.opt.HistoryURL
		}
		return res, nil
	})
	if err != nil {
		return nil, err
	}
	res.CpuNs, res.MemoryBytes = selfCost()
	return connect.NewResponse(res), nil
}
