package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"connectrpc.com/connect"
	ids "github.com/google/uuid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/placement"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// deployLifetime is for how long a host may begin to start a VM.
const deployLifetime = 2 * time.Minute

// DeployVM implements ManagementService.
func (s *Server) DeployVM(ctx context.Context, req *connect.Request[serverpb.DeployVMRequest]) (*connect.Response[serverpb.DeployVMResponse], error) {
	m := req.Msg
	d, err := newDeployment(m)
	if err != nil {
		return nil, err
	}
	if m.GetValidateOnly() {
		ctx = withoutChange(ctx)
	}
	for range conflictRetries {
		var o *serverpb.OrderRecord
		var revision int64
		if err := s.read(ctx, func(v *view) (err error) {
			before := v.orders[d.id]
			if before != nil && before.GetOutcome().GetError() == "" { // under way, or done
				return checkSame(before, d.digest)
			}
			o, err = s.order(v, d)
			revision = v.revision
			return err
		}); err != nil {
			return nil, err
		}
		if o != nil {
			var err error
			if revision, err = s.give(ctx, o, revision, deployLifetime); err != nil {
				return nil, err
			}
			if revision == 0 {
				continue
			}
		}
		o, err := s.settled(ctx, d.id, revision)
		if err != nil {
			return nil, err
		}
		return respond(deployed(o))
	}
	return nil, errConflict()
}

// deployment is a request to deploy that was read.
type deployment struct {
	*serverpb.DeployVMRequest
	definition *domainxml.Definition
	id, digest string // of the order
	name       string
}

func newDeployment(m *serverpb.DeployVMRequest) (deployment, error) {
	d := deployment{DeployVMRequest: m}
	if err := checkRequestID(m.GetRequestId()); err != nil {
		return d, err
	}
	if err := checkLabels("host_labels", m.GetHostLabels()); err != nil {
		return d, err
	}
	var err error
	if d.definition, err = domainxml.Parse(m.GetDefinition()); err != nil {
		return d, refuseDefinition(err)
	}
	d.name = cmp.Or(m.GetName(), d.definition.Name)
	if err := domainxml.CheckName(d.name); err != nil {
		return d, refuseDefinition(err)
	}
	d.id, d.digest = identify(m)
	return d, nil
}

func refuseDefinition(err error) error {
	var p *domainxml.Problem
	field := "definition"
	if errors.As(err, &p) {
		field += "." + p.Field
	}
	return refusal(connect.CodeInvalidArgument, reasonDefinition, err, fieldViolation(field, err))
}

// order decides where the VM is to be and what that host is to do.
func (s *Server) order(v *view, d deployment) (*serverpb.OrderRecord, error) {
	account, err := v.accountFor(d)
	if err != nil {
		return nil, err
	}
	if err := v.checkFree(d); err != nil {
		return nil, err
	}
	labels := maps.Clone(account.GetHostLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, d.GetHostLabels())
	host, why, err := s.placeVM(v, account.GetName(), placement.Request{Needs: d.definition.Size, Labels: labels, Host: d.GetHost()})
	if err != nil {
		return nil, err
	}
	vm := d.definition.ID
	if vm == "" || d.GetName() != "" && d.GetName() != d.definition.Name {
		vm = gnomon.VMID(ids.NewSHA1(ids.NameSpaceOID, []byte("gnomon/"+d.id)).String())
	}
	return &serverpb.OrderRecord{
		Host: host, WhyHost: why, Request: d.digest, CreatedUnixNano: time.Now().UnixNano(),
		Order: &serverpb.Order{Id: d.id, Attempt: rand.Text(), What: &serverpb.Order_Deploy{Deploy: &serverpb.Deploy{
			Definition: d.definition.Stamped(domainxml.Stamp{Name: d.name, ID: vm, Account: account.GetName(), Order: d.id}),
			Vm:         string(vm), VmName: d.name, Account: account.GetName(),
			Needs: amounts(d.definition.Size), ValidateOnly: d.GetValidateOnly(),
		}}},
	}, nil
}

// accountFor returns whose VM it is to be.
func (v *view) accountFor(d deployment) (*serverpb.Account, error) {
	named := d.definition.Account
	name := cmp.Or(d.GetAccount(), named)
	switch {
	case name == "":
		return nil, refuseField("account", "account: neither the request nor the definition names one")
	case named != "" && named != name:
		return nil, refuseField("account", "account %q: the definition names another, %q", shorten(name), shorten(named))
	}
	a, ok := v.accounts[name]
	if !ok {
		return nil, errNoAccount(name)
	}
	return a, nil
}

// checkFree refuses a name or an id that a VM somewhere has: a VM is known by
// either, whichever host it is on.
func (v *view) checkFree(d deployment) error {
	keepsID := d.GetName() == "" || d.GetName() == d.definition.Name
	for m := range v.vms() {
		if m.name == d.name {
			return refuse(connect.CodeAlreadyExists, "a VM named %q runs on host %q", d.name, m.host)
		}
		if keepsID && m.id == string(d.definition.ID) {
			return refuse(connect.CodeAlreadyExists, "the definition's uuid is that of %q on host %q: remove it from the definition to have a new one", m.name, m.host)
		}
	}
	return nil
}

// placeVM chooses a host, of those that deploy VMs.
func (s *Server) placeVM(v *view, account string, r placement.Request) (host, why string, err error) {
	if r.Host != "" {
		h, known := v.hosts[r.Host]
		switch _, connected := v.online[r.Host]; {
		case !known:
			return "", "", v.errNoHost(r.Host)
		case connected && !h.GetTakesOrders():
			return "", "", refuse(connect.CodeFailedPrecondition, "host %q runs gnomon %s, which deploys no VMs: upgrade it", r.Host, cmp.Or(h.GetVersion(), "of an unknown version"))
		}
	}
	var hosts []placement.Host
	for _, h := range s.candidates(v, account) {
		if v.hosts[h.Name].GetTakesOrders() {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 && r.Host == "" {
		return "", "", refuse(connect.CodeFailedPrecondition, "no host is connected that deploys VMs: start \"gnomon host\" on one, or upgrade it; see \"gnomon host ls\"")
	}
	best, why, err := placement.Place(hosts, r)
	return best.Name, why, refusePlace(err)
}

func refusePlace(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, placement.ErrOverCapacity):
		return refusal(connect.CodeResourceExhausted, reasonOverCapacity, err)
	}
	return refuse(connect.CodeFailedPrecondition, "%w; see \"gnomon host ls\"", err)
}

// checkSame refuses to take a request for another by its id.
func checkSame(o *serverpb.OrderRecord, digest string) error {
	if o.GetRequest() != digest {
		return refuseField("request_id", "request_id: it was that of another request within the last day")
	}
	return nil
}

// deployed returns what became of a deployment.
func deployed(o *serverpb.OrderRecord) (*serverpb.DeployVMResponse, error) {
	d, out := o.GetOrder().GetDeploy(), o.GetOutcome()
	if out.GetError() != "" {
		return nil, orderError(o)
	}
	return &serverpb.DeployVMResponse{
		Vm: d.GetVm(), VmName: d.GetVmName(), Account: d.GetAccount(), Host: o.GetHost(), WhyHost: o.GetWhyHost(),
		Shadow: out.GetShadow(), Warm: out.GetWarm(), StartNs: out.GetStartNs(), AssociateNs: out.GetAssociateNs(),
	}, nil
}

// orderCodes are those of the reasons that hosts give.
var orderCodes = map[string]connect.Code{
	reasons[connect.CodeAlreadyExists]:      connect.CodeAlreadyExists,
	reasons[connect.CodeFailedPrecondition]: connect.CodeFailedPrecondition,
	reasonDefinition:                        connect.CodeInvalidArgument,
	reasonOverCapacity:                      connect.CodeResourceExhausted,
}

// orderError is the error that a host met with.
func orderError(o *serverpb.OrderRecord) error {
	out := o.GetOutcome()
	code, ok := orderCodes[out.GetReason()]
	if !ok {
		code = connect.CodeInternal
	}
	return refusal(code, cmp.Or(out.GetReason(), "HOST_FAILED"), fmt.Errorf("host %q: %s", o.GetHost(), out.GetError()))
}

func amounts(a gnomon.Resources) map[string]int64 {
	m := map[string]int64{}
	for r := range gnomon.AllResources() {
		if a[r] > 0 {
			m[r.String()] = a[r]
		}
	}
	return m
}
