package server

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// movers are two hosts, the first of which runs a VM, that carry orders out by
// saying so.
type movers struct {
	*running
	one, two *testHost

	mu   sync.Mutex
	seen []string // which host was given what, in that order
	fail map[string]string
}

const guestID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

func newMovers(t *testing.T) *movers {
	s := serve(t, Options{})
	m := &movers{running: s, one: connectHost(t, s.url, "node1"), two: connectHost(t, s.url, "node2"), fail: map[string]string{}}
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	m.at("node1")
	m.one.obeys(func(o *serverpb.Order) *serverpb.Outcome { return m.outcome(t, "node1", o) })
	m.two.obeys(func(o *serverpb.Order) *serverpb.Outcome { return m.outcome(t, "node2", o) })
	return m
}

// at has the VM be on one of the hosts, which with it is about to be short.
func (m *movers) at(host string) {
	there := &serverpb.ReportRequest{
		Associations: []*serverpb.Association{{Vm: guestID, VmName: "web", Account: "acme"}},
		Free:         map[string]int64{"cpu": 500, "memory": 4 << 30}, Predicted: map[string]int64{"cpu": 7600},
		Capacity: map[string]int64{"cpu": 8000, "memory": 16 << 30},
		Needs:    []*serverpb.VMNeeds{{Vm: guestID, Predicted: map[string]int64{"cpu": 4000}, MemoryBytes: 1 << 30}},
	}
	away := &serverpb.ReportRequest{Free: map[string]int64{"cpu": 8000, "memory": 16 << 30}, Predicted: map[string]int64{}}
	if host == "node1" {
		m.two.report(away)
		m.one.report(there)
		return
	}
	m.one.report(away)
	m.two.report(there)
}

func (m *movers) outcome(t *testing.T, host string, o *serverpb.Order) *serverpb.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	what := ""
	out := &serverpb.Outcome{}
	switch o := o.What.(type) {
	case *serverpb.Order_Describe:
		what = "describe " + o.Describe.GetVm()
		out.Handover = &serverpb.Handover{Needs: map[string]int64{"cpu": 4000}, Limits: map[string]int64{"cpu": -1}, AgentState: []byte("learned")}
	case *serverpb.Order_Receive:
		what = "receive " + o.Receive.GetVmName() + " " + string(o.Receive.GetHandover().GetAgentState())
	case *serverpb.Order_Move:
		what = "move to " + o.Move.GetToHost() + " at " + o.Move.GetToUri()
		out.MoveNs = 7
		if m.fail["move"] == "hang" {
			return nil
		}
	}
	m.seen = append(m.seen, host+": "+what)
	if err := m.fail[strings.Fields(what)[0]]; err != "" {
		return &serverpb.Outcome{Error: err}
	}
	return out
}

func (m *movers) move(t *testing.T, req *serverpb.MoveVMRequest) (*serverpb.MoveVMResponse, error) {
	r, err := m.api.MoveVM(t.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func TestMove(t *testing.T) {
	t.Parallel()
	m := newMovers(t)
	req := &serverpb.MoveVMRequest{Vm: "web", Host: "node2", RequestId: "r1"}
	got, err := m.move(t, req)
	if err != nil || got.GetVm() != guestID || got.GetFromHost() != "node1" || got.GetToHost() != "node2" || got.GetMoveNs() != 7 {
		t.Fatalf("got %v, %v", got, err)
	}
	again, err := m.move(t, req)
	if err != nil || again.GetMoveNs() != 7 {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	want := "node1: describe " + guestID + "\nnode2: receive web learned\nnode1: move to node2 at qemu+tls://node2/system"
	if got := strings.Join(m.seen, "\n"); got != want {
		t.Errorf("the hosts were given\n%s\nwant\n%s", got, want)
	}
	for _, kv := range m.everything(t) {
		if strings.Contains(string(kv.Key), "-receive") && strings.Contains(string(kv.Value), "agentState") {
			t.Error("what the agent learned is kept in the store")
		}
	}
}

// Until a VM moves nothing has changed for it; what fails is told.
func TestMoveFails(t *testing.T) {
	t.Parallel()
	m := newMovers(t)
	set := func(step, err string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.fail, m.seen = map[string]string{step: err}, nil
	}
	for _, c := range []struct {
		step, says string
		orders     int
	}{{"describe", `host "node1": gone`, 1}, {"receive", `host "node2": gone`, 2}, {"move", `host "node1": gone`, 3}} {
		set(c.step, "gone")
		_, err := m.move(t, &serverpb.MoveVMRequest{Vm: guestID, Host: "node2", RequestId: "r1"})
		wantCode(t, err, connect.CodeInternal, c.says)
		m.mu.Lock()
		if len(m.seen) != c.orders {
			t.Errorf("%s fails: the hosts were given %v", c.step, m.seen)
		}
		m.mu.Unlock()
	}
	set("", "")
	if _, err := m.move(t, &serverpb.MoveVMRequest{Vm: guestID, Host: "node2", RequestId: "r1"}); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

func TestMoveRefuses(t *testing.T) {
	t.Parallel()
	m := newMovers(t)
	old, err := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, m.url).Watch(t.Context(), connect.NewRequest(&serverpb.WatchRequest{Host: "old"}))
	if err != nil || !old.Receive() {
		t.Fatal(err, old.Err())
	}
	defer old.Close()
	deaf, err := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, m.url).Watch(t.Context(), connect.NewRequest(&serverpb.WatchRequest{Host: "deaf", TakesOrders: true}))
	if err != nil || !deaf.Receive() {
		t.Fatal(err, deaf.Err())
	}
	defer deaf.Close()
	connectHost(t, m.url, "away").stop()
	eventually(t, "the host to be away", func() bool { return !m.host(t, "away").GetConnected() })
	for name, c := range map[string]struct {
		vm, host string
		code     connect.Code
		says     string
	}{
		"no such VM":         {"db", "node2", connect.CodeNotFound, `vm "db"`},
		"a VM nowhere":       {"00000000-1111-2222-3333-444444444444", "node2", connect.CodeNotFound, "runs on no host"},
		"no such host":       {"web", "node9", connect.CodeNotFound, `host "node9" is not known`},
		"where it is":        {"web", "node1", connect.CodeFailedPrecondition, `is on host "node1" already`},
		"a host that is off": {"web", "away", connect.CodeFailedPrecondition, `host "away" is not connected`},
		"a host that is old": {"web", "old", connect.CodeFailedPrecondition, "upgrade it"},
		"no address":         {"web", "deaf", connect.CodeFailedPrecondition, "--migration-uri"},
	} {
		_, err := m.move(t, &serverpb.MoveVMRequest{Vm: c.vm, Host: c.host})
		wantCode(t, err, c.code, c.says)
		if err == nil {
			t.Error(name)
		}
	}
	m.mu.Lock()
	m.fail["move"] = "hang"
	m.mu.Unlock()
	go func() {
		_, _ = m.api.MoveVM(t.Context(), connect.NewRequest(&serverpb.MoveVMRequest{Vm: "web", Host: "node2"}))
	}()
	m.one.until("the move", func(d *serverpb.DesiredState) bool {
		for _, o := range d.GetOrders() {
			if o.GetMove() != nil {
				return true
			}
		}
		return false
	})
	_, err = m.move(t, &serverpb.MoveVMRequest{Vm: "web", Host: "node2"})
	wantCode(t, err, connect.CodeFailedPrecondition, `has part in the move of "web"`)
}

func (m *movers) advise(t *testing.T, undo bool) *serverpb.AdviseResponse {
	t.Helper()
	return must[serverpb.AdviseResponse](t)(m.api.Advise(t.Context(), connect.NewRequest(&serverpb.AdviseRequest{Undo: undo})))
}

// What is advised is done, is not advised to be undone by itself, and can be taken
// back.
func TestAdvise(t *testing.T) {
	t.Parallel()
	m := newMovers(t)
	a := m.advise(t, false)
	if len(a.GetMoves()) != 1 || len(a.GetUnsolved()) != 0 || a.GetId() == "" {
		t.Fatalf("got %v", a)
	}
	if got := a.GetMoves()[0]; got.GetVm() != guestID || got.GetVmName() != "web" || got.GetFromHost() != "node1" || got.GetToHost() != "node2" ||
		!strings.Contains(got.GetWhy(), "node1 is predicted to need 7.6 cores of its 8 cores of cpu (95%)") {
		t.Errorf("got %v", got)
	}
	if back := m.advise(t, true); len(back.GetMoves()) != 0 {
		t.Errorf("before anything was followed there is %v to take back", back)
	}
	if _, err := m.move(t, &serverpb.MoveVMRequest{Vm: guestID, Host: "node2", Advice: a.GetId()}); err != nil {
		t.Fatal(err)
	}
	m.at("node2") // which is as short with it as the other was
	after := m.advise(t, false)
	if len(after.GetMoves()) != 0 || len(after.GetUnsolved()) != 1 || !strings.HasPrefix(after.GetUnsolved()[0], "node2 is predicted to need") {
		t.Errorf("a VM that was moved just now: %v", after)
	}
	back := m.advise(t, true)
	if len(back.GetMoves()) != 1 || back.GetMoves()[0].GetFromHost() != "node2" || back.GetMoves()[0].GetToHost() != "node1" || !strings.Contains(back.GetMoves()[0].GetWhy(), "it was on node1 until") {
		t.Fatalf("to take it back: %v", back)
	}
	if _, err := m.move(t, &serverpb.MoveVMRequest{Vm: guestID, Host: "node1", Advice: back.GetId()}); err != nil {
		t.Fatal(err)
	}
	m.at("node1")
	if more := m.advise(t, true); len(more.GetMoves()) != 0 {
		t.Errorf("after it was taken back there is %v", more)
	}
}
