package host

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// ListShadows implements the API.
func (a API) ListShadows(ctx context.Context, _ *connect.Request[hostpb.ListShadowsRequest]) (*connect.Response[hostpb.ListShadowsResponse], error) {
	res, err := ask(ctx, a.d, func() (*hostpb.ListShadowsResponse, error) {
		res := &hostpb.ListShadowsResponse{}
		for _, s := range a.d.sortedShadows() {
			res.Shadows = append(res.Shadows, a.d.describeShadow(s))
		}
		return res, nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range res.GetShadows() {
		memory, cpu, err := a.d.opt.Shadows.Cost(shadow.Machine{Name: s.GetName(), ID: gnomon.VMID(s.GetId())})
		if err == nil { // else it is starting, or ended
			s.MemoryResidentBytes, s.CpuNs = memory, int64(cpu)
		}
	}
	return connect.NewResponse(res), nil
}

func (d *Daemon) describeShadow(s *shadowVM) *hostpb.Shadow {
	out := &hostpb.Shadow{
		Name: s.name, Id: string(s.id), Account: s.account, State: s.state, Connected: s.link != nil,
		CpuLimitMillicores: s.size.CPU, MemoryBytes: s.size.Memory,
		AgentHeapBytes: s.heap, StartedUnixNano: s.started.UnixNano(),
	}
	if v := d.vms[s.vm]; v != nil {
		out.Vm, out.Restarts = v.machine.Name, int32(v.restarts)
	} else {
		out.Vm = string(s.vm)
	}
	return out
}

// SuspendShadow implements the API.
func (a API) SuspendShadow(ctx context.Context, req *connect.Request[hostpb.SuspendShadowRequest]) (*connect.Response[hostpb.SuspendShadowResponse], error) {
	err := a.steer(ctx, req.Msg.GetShadow(), func(s *shadowVM) {
		if !s.suspended {
			a.d.suspend(s)
		}
	})
	return connect.NewResponse(&hostpb.SuspendShadowResponse{}), err
}

// ResumeShadow implements the API.
func (a API) ResumeShadow(ctx context.Context, req *connect.Request[hostpb.ResumeShadowRequest]) (*connect.Response[hostpb.ResumeShadowResponse], error) {
	err := a.steer(ctx, req.Msg.GetShadow(), func(s *shadowVM) {
		if s.suspended {
			a.d.resume(s)
		}
	})
	return connect.NewResponse(&hostpb.ResumeShadowResponse{}), err
}

func (a API) steer(ctx context.Context, ref string, f func(*shadowVM)) error {
	return a.d.call(ctx, func() error {
		for _, s := range a.d.sortedShadows() {
			if s.name != ref && string(s.id) != ref {
				continue
			}
			if s.id == "" {
				return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("shadow %q is still starting: try again", ref))
			}
			f(s)
			return nil
		}
		return notFound("shadow %q: no such shadow; see \"gnomon shadow ls\"", ref)
	})
}
