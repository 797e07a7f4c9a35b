package server

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

func wantCode(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, code, text)
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	ctx := context.Background()
	_, err := s.account("acme", "")
	wantCode(t, err, connect.CodeFailedPrecondition, "no host is connected")
	_, err = s.account("acme", "node1")
	wantCode(t, err, connect.CodeNotFound, "none has ever connected")

	one, two := connectHost(t, s.url, "node1"), connectHost(t, s.url, "node2")
	for _, name := range []string{"", "Acme", "a_b", "-a", "a-", "a.b", "a/b", strings.Repeat("a", 64), "a\n"} {
		_, err = s.account(name, "")
		wantCode(t, err, connect.CodeInvalidArgument, "lower-case letters")
	}
	_, err = s.account("acme", "node3")
	wantCode(t, err, connect.CodeNotFound, `"node3" is not known: there are node1, node2`)

	one.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 1000, "memory": 8 << 30}})
	two.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 6000, "memory": 12 << 30}})
	a, err := s.account("acme", "")
	if err != nil || a.GetHost() != "node2" || a.GetShadow() != "none" {
		t.Fatalf("got %v, %v; want it on node2, the least loaded", a, err)
	}
	_, err = s.account("acme", "node1")
	wantCode(t, err, connect.CodeAlreadyExists, `"acme" exists already`)
	if a, err = s.account("beta", "node1"); err != nil || a.GetHost() != "node1" {
		t.Fatalf("got %v, %v", a, err)
	}
	two.until("acme", func(d *serverpb.DesiredState) bool { return len(d.GetAccounts()) == 1 && d.GetAccounts()[0] == "acme" })
	one.until("beta", func(d *serverpb.DesiredState) bool { return len(d.GetAccounts()) == 1 && d.GetAccounts()[0] == "beta" })

	two.report(&serverpb.ReportRequest{
		Warm:         []*serverpb.Account{{Name: "acme", Shadow: "warm"}},
		Associations: []*serverpb.Association{{Vm: "id-1", VmName: "web1", Account: "acme", Shadow: "s1", ShadowState: "running"}},
	})
	list := must[serverpb.ListAccountsResponse](t)(s.api.ListAccounts(ctx, connect.NewRequest(&serverpb.ListAccountsRequest{})))
	if as := list.GetAccounts(); len(as) != 2 || as[0].GetShadow() != "warm" || as[1].GetShadow() != "none" || as[0].GetCreatedUnixNano() == 0 {
		t.Errorf("got %v", as)
	}
	if h := s.host(t, "node2"); !h.GetConnected() || h.GetVms() != 1 || h.GetShadows() != 2 || h.GetCapacity()["cpu"] != 8000 {
		t.Errorf("got %v", h)
	}
	assoc := must[serverpb.ListAssociationsResponse](t)(s.api.ListAssociations(ctx, connect.NewRequest(&serverpb.ListAssociationsRequest{})))
	if as := assoc.GetAssociations(); len(as) != 1 || as[0].GetHost() != "node2" || as[0].GetShadow() != "s1" {
		t.Errorf("got %v", as)
	}

	remove := func(name string) error {
		_, err := s.api.DeleteAccount(ctx, connect.NewRequest(&serverpb.DeleteAccountRequest{Name: name}))
		return err
	}
	wantCode(t, remove("acme"), connect.CodeFailedPrecondition, "web1 on node2")
	wantCode(t, remove("nobody"), connect.CodeNotFound, `"nobody" does not exist`)
	two.report(&serverpb.ReportRequest{})
	if _, err := s.set(&serverpb.Scope{Account: "acme"}, map[string]string{"hold": "1m"}); err != nil {
		t.Fatal(err)
	}
	if err := remove("acme"); err != nil {
		t.Fatal(err)
	}
	two.until("no account and no layer", func(d *serverpb.DesiredState) bool { return len(d.GetAccounts())+len(d.GetByAccount()) == 0 })
}

func TestConfigReachesHosts(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	one, two := connectHost(t, s.url, "node1"), connectHost(t, s.url, "node2")
	one.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{
		{Vm: "id-1", VmName: "web", Account: "acme"}, {Vm: "id-2", VmName: "db"}}})
	two.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "id-3", VmName: "web"}}})
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	set := func(scope *serverpb.Scope, key, value string) int64 {
		t.Helper()
		revision, err := s.set(scope, map[string]string{key: value})
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	first := set(nil, "predictionHorizon", "10s")
	set(&serverpb.Scope{Account: "acme"}, "hold", "20s")
	set(&serverpb.Scope{Host: "node1"}, "capacity", "disk=1GB/s")
	last := set(&serverpb.Scope{Vm: "db"}, "headroom", "50%")
	set(&serverpb.Scope{Vm: "id-1"}, "headroom", "60%")
	unborn := "6f1e1c1e-9b1a-4d2e-8f3a-000000000000"
	set(&serverpb.Scope{Vm: unborn}, "headroom", "70%")
	if last <= first {
		t.Errorf("revisions %d, then %d", first, last)
	}

	d := one.until("all", func(d *serverpb.DesiredState) bool { return len(d.GetByVm()) == 3 })
	if d.GetGlobal()["predictionHorizon"] != "10s" || d.GetByAccount()["acme"].GetValues()["hold"] != "20s" ||
		d.GetHost()["capacity"] != "disk=1GB/s" || d.GetByVm()["id-2"].GetValues()["headroom"] != "50%" || d.GetRevision() < last {
		t.Errorf("node1 was told %v", d)
	}
	d = two.until("its part", func(d *serverpb.DesiredState) bool { return len(d.GetByVm()) == 1 })
	if len(d.GetHost()) != 0 || d.GetByVm()[unborn] == nil {
		t.Errorf("node2 was told %v", d)
	}

	for _, tc := range []struct {
		scope              *serverpb.Scope
		key, value, origin string
	}{
		{&serverpb.Scope{Vm: "db"}, "headroom", "50%", "vm db"},
		{&serverpb.Scope{Vm: "db"}, "capacity", "disk=1GB/s", "host node1"},
		{&serverpb.Scope{Vm: "id-1"}, "hold", "20s", "account acme"},
		{&serverpb.Scope{Vm: "id-3"}, "predictionHorizon", "10s", "global"},
		{&serverpb.Scope{Host: "node2"}, "capacity", "", "default"},
		{nil, "monitoringInterval", "1s", "default"},
	} {
		if value, origin := s.get(t, tc.scope, tc.key); value != tc.value || origin != tc.origin {
			t.Errorf("%v %s: got %q from %q, want %q from %q", tc.scope, tc.key, value, origin, tc.value, tc.origin)
		}
	}

	set(&serverpb.Scope{Vm: "db"}, "headroom", "")
	one.until("one less", func(d *serverpb.DesiredState) bool { return len(d.GetByVm()) == 2 })
	_, states := two.last()
	set(&serverpb.Scope{Host: "node1"}, "hold", "3s")
	one.until("hold", func(d *serverpb.DesiredState) bool { return d.GetHost()["hold"] == "3s" })
	set(&serverpb.Scope{Host: "node2"}, "hold", "4s")
	two.until("hold", func(d *serverpb.DesiredState) bool { return d.GetHost()["hold"] == "4s" })
	if _, now := two.last(); now != states+1 {
		t.Errorf("node2 was told %d times, want once: what concerns node1 only is no news", now-states)
	}
}

func TestBadConfigLeavesAllAsWas(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{
		{Vm: "id-1", VmName: "web"}, {Vm: "id-2", VmName: "web"}, {Vm: "id-3", VmName: "db"}}})
	if _, err := s.account("acme", ""); err != nil {
		t.Fatal(err)
	}
	acme := &serverpb.Scope{Account: "acme"}
	for _, c := range []struct {
		scope  *serverpb.Scope
		values map[string]string
	}{
		{nil, map[string]string{"predictionHorizon": "10s", "limits.ceiling": "cpu=8"}},
		{acme, map[string]string{"monitoringInterval": "6s"}}, // fits with the one before
		{&serverpb.Scope{Vm: "id-3"}, map[string]string{"limits.floor": "cpu=4"}},
	} {
		if _, err := s.set(c.scope, c.values); err != nil {
			t.Fatal(err)
		}
	}
	before := s.revision(t)
	for name, tc := range map[string]struct {
		scope  *serverpb.Scope
		values map[string]string
		code   connect.Code
		want   string
	}{
		"nothing":            {nil, nil, connect.CodeInvalidArgument, "values: none is given"},
		"unknown key":        {nil, map[string]string{"horizon": "1s", "hold": "1s"}, connect.CodeInvalidArgument, "unknown parameter"},
		"unset unknown":      {nil, map[string]string{"predictionHorizom": ""}, connect.CodeInvalidArgument, `did you mean "predictionHorizon"`},
		"one of two bad":     {nil, map[string]string{"hold": "1s", "headroom": "many"}, connect.CodeInvalidArgument, `headroom = "many"`},
		"two kinds, first":   {nil, map[string]string{"predictionHorizon": "500ms", "headroom": "many"}, connect.CodeInvalidArgument, "must be at least monitoringInterval"},
		"two kinds, second":  {nil, map[string]string{"predictionHorizon": "500ms", "headroom": "many"}, connect.CodeInvalidArgument, `headroom = "many"`},
		"wrong scope":        {acme, map[string]string{"capacity": "cpu=1"}, connect.CodeInvalidArgument, "only globally or per host"},
		"misfit of itself":   {nil, map[string]string{"predictionHorizon": "500ms"}, connect.CodeInvalidArgument, "must be at least monitoringInterval"},
		"misfit of account":  {nil, map[string]string{"predictionHorizon": "5s"}, connect.CodeInvalidArgument, "account acme: monitoringInterval"},
		"unset that misfits": {nil, map[string]string{"predictionHorizon": ""}, connect.CodeInvalidArgument, "account acme: monitoringInterval"},
		"misfit of host":     {&serverpb.Scope{Host: "node1"}, map[string]string{"predictionHorizon": "5s"}, connect.CodeInvalidArgument, "host node1: predictionHorizon"},
		"misfit of vm":       {nil, map[string]string{"limits.ceiling": "cpu=2"}, connect.CodeInvalidArgument, "limits.floor (4)"},
		"two scopes":         {&serverpb.Scope{Account: "acme", Host: "node1"}, map[string]string{"hold": "1s"}, connect.CodeInvalidArgument, "want one of"},
		"unknown account":    {&serverpb.Scope{Account: "x"}, map[string]string{"hold": "1s"}, connect.CodeNotFound, `account "x"`},
		"unknown host":       {&serverpb.Scope{Host: "x"}, map[string]string{"hold": "1s"}, connect.CodeNotFound, `host "x"`},
		"unknown vm":         {&serverpb.Scope{Vm: "x"}, map[string]string{"hold": "1s"}, connect.CodeNotFound, `vm "x"`},
		"ambiguous vm":       {&serverpb.Scope{Vm: "web"}, map[string]string{"hold": "1s"}, connect.CodeInvalidArgument, "id-1 on node1, id-2 on node1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.set(tc.scope, tc.values)
			wantCode(t, err, tc.code, tc.want)
		})
	}
	if now := s.revision(t); now != before {
		t.Errorf("the store went from revision %d to %d", before, now)
	}
	if _, err := s.set(acme, map[string]string{"monitoringInterval": "6s"}); err != nil || s.revision(t) != before {
		t.Errorf("setting what is set: %v, revision %d, was %d", err, s.revision(t), before)
	}
}

func TestHeartbeatsWriteNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	as := []*serverpb.Association{{Vm: "id-1", VmName: "web", Shadow: "s"}}
	h.report(&serverpb.ReportRequest{Associations: as, Free: map[string]int64{"cpu": 1}})
	before := s.revision(t)
	for i := range int64(50) {
		h.report(&serverpb.ReportRequest{Associations: as, Free: map[string]int64{"cpu": 1 + i}})
	}
	if now := s.revision(t); now != before {
		t.Errorf("50 heartbeats wrote %d times", now-before)
	}
	if free := s.host(t, "node1").GetFree()["cpu"]; free != 50 {
		t.Errorf("free is %d, want the latest", free)
	}
	h.report(&serverpb.ReportRequest{Associations: nil})
	if now := s.revision(t); now != before+1 {
		t.Errorf("a change wrote %d times, want once", now-before)
	}
	if h := s.host(t, "node1"); h.GetVms() != 0 {
		t.Errorf("got %v", h)
	}
}

func TestBadReports(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	for want, r := range map[string]*serverpb.ReportRequest{
		"host name":                   {},
		"must watch before":           {Host: "node2"},
		`reports for "node2"`:         {Host: "node1", Associations: []*serverpb.Association{{Vm: "x", Host: "node2"}}},
		"associations: vm \"\"":       {Host: "node1", Associations: []*serverpb.Association{{}}},
		"associations: vm_name":       {Host: "node1", Associations: []*serverpb.Association{{Vm: "x", VmName: "a\x00b"}}},
		"free: unknown resource":      {Host: "node1", Free: map[string]int64{"gpu": 1}},
		"free of cpu: -1 is negative": {Host: "node1", Free: map[string]int64{"cpu": -1}},
		"want at most 10000":          {Host: "node1", Associations: make([]*serverpb.Association, 10001)},
	} {
		for i, a := range r.GetAssociations() {
			if a == nil {
				r.Associations[i] = &serverpb.Association{Vm: "x"}
			}
		}
		_, err := s.Report(access.With(context.Background(), access.Caller{Role: access.Admin}, nil), connect.NewRequest(r))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if d, _ := h.last(); d == nil || s.host(t, "node1").GetVms() != 0 {
		t.Error("a bad report had an effect")
	}
}
