package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// definitionOf is a small definition: 1 vCPU and 1 GiB but for what is said.
func definitionOf(name string, more ...string) string {
	if name != "" {
		name = "<name>" + name + "</name>"
	}
	return `<domain type="kvm">` + name + `<memory unit="GiB">1</memory>` + strings.Join(more, "") + `</domain>`
}

func (r *running) deploy(t *testing.T, m *serverpb.DeployVMRequest) (*serverpb.DeployVMResponse, error) {
	t.Helper()
	res, err := r.api.DeployVM(t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// obeys has a host settle every order as told, and returns those it was given.
func (h *testHost) obeys(outcome func(*serverpb.Order) *serverpb.Outcome) (given func() []*serverpb.Order) {
	var orders []*serverpb.Order
	seen := map[string]bool{}
	step := func() {
		d, _ := h.last()
		for _, o := range d.GetOrders() {
			if key := o.GetId() + o.GetAttempt(); !seen[key] {
				seen[key] = true
				orders = append(orders, o)
				if out := outcome(o); out != nil {
					if err := h.link.Settle(h.t.Context(), &serverpb.SettleRequest{Host: h.name, Order: o.GetId(), Attempt: o.GetAttempt(), Outcome: out}); err != nil && h.t.Context().Err() == nil {
						h.t.Error(err)
					}
				}
			}
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				step()
			case <-stop:
				return
			}
		}
	}()
	end := func() { // once, by the test's end or by asking
		select {
		case <-stopped:
		default:
			close(stop)
			<-stopped
		}
	}
	h.t.Cleanup(end)
	return func() []*serverpb.Order { end(); return orders }
}

func TestDeploy(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	one, two := connectHost(t, s.url, "node1"), connectHost(t, s.url, "node2")
	one.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 2000, "memory": 12 << 30}})
	two.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 6000, "memory": 12 << 30}})
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	one.obeys(func(*serverpb.Order) *serverpb.Outcome { return &serverpb.Outcome{} })
	given := two.obeys(func(*serverpb.Order) *serverpb.Outcome {
		return &serverpb.Outcome{Shadow: "s1", Warm: true, StartNs: 2, AssociateNs: 1}
	})
	m := &serverpb.DeployVMRequest{Definition: definitionOf("web"), Account: "acme", RequestId: "r1"}
	got, err := s.deploy(t, m)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetHost() != "node2" || got.GetVmName() != "web" || got.GetAccount() != "acme" || got.GetShadow() != "s1" || !got.GetWarm() ||
		got.GetStartNs() != 2 || got.GetAssociateNs() != 1 || got.GetVm() == "" || !strings.Contains(got.GetWhyHost(), "the least of 2 hosts") {
		t.Errorf("got %v", got)
	}
	again, err := s.deploy(t, m)
	if err != nil || again.GetVm() != got.GetVm() {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	_, err = s.deploy(t, &serverpb.DeployVMRequest{Definition: definitionOf("db"), Account: "acme", RequestId: "r1"})
	wantCode(t, err, connect.CodeInvalidArgument, "another request")

	_, err = s.deploy(t, &serverpb.DeployVMRequest{Definition: definitionOf("web"), Account: "acme", Name: "web2", Host: "node2", ValidateOnly: true})
	if err != nil {
		t.Error(err)
	}
	orders := given()
	if len(orders) != 2 {
		t.Fatalf("the host was given %v", orders)
	}
	d, err := domainxml.Parse(orders[0].GetDeploy().GetDefinition())
	if err != nil || d.Name != "web" || string(d.ID) != got.GetVm() || d.Account != "acme" || d.Order != orders[0].GetId() {
		t.Errorf("the definition says %+v, %v", d, err)
	}
	if o := orders[0].GetDeploy(); o.GetNeeds()["cpu"] != 1000 || o.GetNeeds()["memory"] != 1<<30 || o.GetValidateOnly() {
		t.Errorf("the order is %v", o)
	}
	if o := orders[1].GetDeploy(); o.GetVmName() != "web2" || o.GetVm() == got.GetVm() || !o.GetValidateOnly() {
		t.Errorf("the order is %v", o)
	}
	changes := must[serverpb.ListChangesResponse](t)(serverpbconnect.NewAccessServiceClient(http.DefaultClient, s.url).
		ListChanges(t.Context(), connect.NewRequest(&serverpb.ListChangesRequest{})))
	deployments := 0
	for _, c := range changes.GetChanges() {
		if c.GetWhat() == "DeployVM" {
			deployments++
		}
	}
	if deployments != 1 {
		t.Errorf("%d deployments are in the log of changes, want the one that was not a trial", deployments)
	}
}

// What is wrong is told with its reason, and no host is given anything.
func TestDeployRefuses(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	const id = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
	h.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 2000, "memory": 2 << 30},
		Associations: []*serverpb.Association{{Vm: id, VmName: "taken", Account: "acme"}}})
	old, err := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, s.url).Watch(t.Context(), connect.NewRequest(&serverpb.WatchRequest{Host: "old", Version: "0.1"}))
	if err != nil || !old.Receive() {
		t.Fatal(err, old.Err())
	}
	defer old.Close()
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	given := h.obeys(func(*serverpb.Order) *serverpb.Outcome { return &serverpb.Outcome{} })
	for name, c := range map[string]struct {
		m              *serverpb.DeployVMRequest
		code           connect.Code
		reason, says   string
		definition, on string
	}{
		"no name":             {definition: definitionOf(""), code: connect.CodeInvalidArgument, reason: reasonDefinition, says: "definition: name: there is none"},
		"no memory":           {definition: `<domain type="kvm"><name>a</name></domain>`, code: connect.CodeInvalidArgument, reason: reasonDefinition, says: "definition: memory: there is none"},
		"no XML":              {definition: "4 GiB", code: connect.CodeInvalidArgument, reason: reasonDefinition, says: "no <domain>"},
		"name taken":          {definition: definitionOf("taken"), code: connect.CodeAlreadyExists, reason: "ALREADY_EXISTS", says: `a VM named "taken" runs on host "node1"`},
		"id taken":            {definition: definitionOf("a", "<uuid>"+id+"</uuid>"), code: connect.CodeAlreadyExists, reason: "ALREADY_EXISTS", says: `that of "taken" on host "node1"`},
		"over capacity":       {definition: definitionOf("a", "<vcpu>3</vcpu>"), code: connect.CodeResourceExhausted, reason: reasonOverCapacity, says: "node1 has 1.95 cores of cpu left and 3 cores is asked for"},
		"too much memory":     {definition: `<domain type="kvm"><name>a</name><memory unit="GiB">3</memory></domain>`, code: connect.CodeResourceExhausted, reason: reasonOverCapacity, says: "of memory left"},
		"no such host":        {definition: definitionOf("a"), on: "node9", code: connect.CodeNotFound, reason: "NOT_FOUND", says: `host "node9" is not known`},
		"a host that is old":  {definition: definitionOf("a"), on: "old", code: connect.CodeFailedPrecondition, reason: "NOT_POSSIBLE_NOW", says: "runs gnomon 0.1, which deploys no VMs: upgrade it"},
		"no account":          {m: &serverpb.DeployVMRequest{Definition: definitionOf("a")}, code: connect.CodeInvalidArgument, reason: reasonInvalid, says: "neither the request nor the definition"},
		"an unknown account":  {m: &serverpb.DeployVMRequest{Definition: definitionOf("a"), Account: "beta"}, code: connect.CodeNotFound, reason: "NOT_FOUND", says: `account "beta" does not exist`},
		"another's":           {definition: definitionOf("a", `<metadata><g:account xmlns:g="`+domainxml.Namespace+`">beta</g:account></metadata>`), code: connect.CodeInvalidArgument, reason: reasonInvalid, says: `the definition names another, "beta"`},
		"labels nobody has":   {m: &serverpb.DeployVMRequest{Definition: definitionOf("a"), Account: "acme", HostLabels: map[string]string{"zone": "b"}}, code: connect.CodeFailedPrecondition, reason: "NOT_POSSIBLE_NOW", says: "zone=b"},
		"a request id of old": {m: &serverpb.DeployVMRequest{Definition: definitionOf("a"), Account: "acme", RequestId: strings.Repeat("x", 65)}, code: connect.CodeInvalidArgument, reason: reasonInvalid, says: "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.m
			if m == nil {
				m = &serverpb.DeployVMRequest{Definition: c.definition, Account: "acme", Host: c.on}
			}
			_, err := s.deploy(t, m)
			wantCode(t, err, c.code, c.says)
			if got := reasonOf(err); got != c.reason {
				t.Errorf("the reason is %q, want %q", got, c.reason)
			}
		})
	}
	if orders := given(); len(orders) > 0 {
		t.Errorf("the host was given %v", orders)
	}
}

func reasonOf(err error) string {
	var rpc *connect.Error
	if !errors.As(err, &rpc) {
		return ""
	}
	for _, d := range rpc.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				return info.GetReason()
			}
		}
	}
	return ""
}

// What a host meets with is told as it is; the same request may then be tried
// again, and is carried out again.
func TestDeployFailsAndIsRepeated(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	given := h.obeys(func(*serverpb.Order) *serverpb.Outcome {
		if attempts++; attempts == 1 {
			return &serverpb.Outcome{Error: "the image is missing"}
		}
		return &serverpb.Outcome{Shadow: fmt.Sprint("s", attempts)}
	})
	m := &serverpb.DeployVMRequest{Definition: definitionOf("web"), Account: "acme", RequestId: "r1"}
	_, err := s.deploy(t, m)
	wantCode(t, err, connect.CodeInternal, `host "node1": the image is missing`)
	got, err := s.deploy(t, m)
	if err != nil || got.GetShadow() != "s2" {
		t.Errorf("again: %v, %v", got, err)
	}
	if orders := given(); len(orders) != 2 || orders[0].GetId() != orders[1].GetId() || orders[0].GetAttempt() == orders[1].GetAttempt() {
		t.Errorf("the host was given %v", orders)
	}
}

// An order that its host does not settle is not carried out ever after.
func TestOrderExpires(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	o := &serverpb.OrderRecord{Host: "node1", Order: &serverpb.Order{Id: "o1"}}
	since, err := s.give(t.Context(), o, s.revision(t), 2*time.Second)
	if err != nil || since == 0 {
		t.Fatal(since, err)
	}
	h.until("the order", func(d *serverpb.DesiredState) bool { return len(d.GetOrders()) == 1 })
	_, err = s.settled(t.Context(), "o1", since)
	wantCode(t, err, connect.CodeDeadlineExceeded, "did not tell in time")
	h.until("no order", func(d *serverpb.DesiredState) bool { return len(d.GetOrders()) == 0 })
	if err := h.link.Settle(t.Context(), &serverpb.SettleRequest{Host: "node1", Order: "o1", Outcome: &serverpb.Outcome{}}); err != nil {
		t.Errorf("settled too late: %v", err)
	}
	other := connectHost(t, s.url, "node2")
	if _, err := s.give(t.Context(), o, s.revision(t), time.Minute); err != nil {
		t.Fatal(err)
	}
	err = other.link.Settle(t.Context(), &serverpb.SettleRequest{Host: "node2", Order: "o1", Outcome: &serverpb.Outcome{}})
	if err == nil || !strings.Contains(err.Error(), `is not for host "node2"`) {
		t.Errorf("settled by another: %v", err)
	}
}

// Of two deployments at once each sees what the other takes.
func TestDeploymentsAtOnceDoNotOverfill(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	h.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 3000, "memory": 12 << 30}})
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := s.api.DeployVM(t.Context(), connect.NewRequest(&serverpb.DeployVMRequest{
				Definition: definitionOf(fmt.Sprint("vm", i), "<vcpu>2</vcpu>"), Account: "acme"}))
			results <- err
		}()
	}
	h.until("an order", func(d *serverpb.DesiredState) bool { return len(d.GetOrders()) == 1 })
	wantCode(t, <-results, connect.CodeResourceExhausted, "node1 has 0.95 cores of cpu left")
	h.obeys(func(*serverpb.Order) *serverpb.Outcome { return &serverpb.Outcome{} })
	if err := <-results; err != nil {
		t.Error(err)
	}
}
