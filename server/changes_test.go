package server

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// versioned is a server with a host, an account and a few changes.
func versioned(t *testing.T) *running {
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "id-1", VmName: "web", Account: "acme"}}})
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	acme, web := &serverpb.Scope{Account: "acme"}, &serverpb.Scope{Vm: "web"}
	for _, c := range []struct {
		scope  *serverpb.Scope
		values map[string]string
	}{
		{nil, map[string]string{"hold": "1s", "headroom": "30%"}}, // version 1
		{acme, map[string]string{"hold": "2s"}},                   // 2
		{web, map[string]string{"hold": "3s"}},                    // 3
		{nil, map[string]string{"hold": "4s"}},                    // 4
		{acme, map[string]string{"hold": ""}},                     // 5
	} {
		if _, err := s.set(c.scope, c.values); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func lines(edits []*serverpb.ConfigEdit) (all []string) {
	for _, e := range edits {
		s := e.GetScope()
		all = append(all, fmt.Sprintf("%s%s%s %s %q %q", s.GetAccount(), s.GetHost(), s.GetVm(), e.GetKey(), e.GetBefore(), e.GetAfter()))
	}
	return all
}

func TestChangesAreKept(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	ctx := t.Context()
	list := must[serverpb.ListConfigChangesResponse](t)(s.api.ListConfigChanges(ctx, connect.NewRequest(&serverpb.ListConfigChangesRequest{PageSize: 2})))
	if c := list.GetChanges(); len(c) != 2 || c[0].GetVersion() != 5 || c[1].GetVersion() != 4 || c[0].GetAtUnixNano() == 0 || c[0].GetBy() == "" {
		t.Errorf("the first page is %v", c)
	}
	list = must[serverpb.ListConfigChangesResponse](t)(s.api.ListConfigChanges(ctx, connect.NewRequest(&serverpb.ListConfigChangesRequest{PageToken: list.GetNextPageToken()})))
	if c := list.GetChanges(); len(c) != 3 || c[2].GetVersion() != 1 || list.GetNextPageToken() != "" {
		t.Errorf("the second page is %v", c)
	}
	list = must[serverpb.ListConfigChangesResponse](t)(s.api.ListConfigChanges(ctx, connect.NewRequest(&serverpb.ListConfigChangesRequest{Scope: &serverpb.Scope{Vm: "web"}})))
	if c := list.GetChanges(); len(c) != 1 || c[0].GetVersion() != 3 || c[0].GetEdits()[0].GetName() != "web" {
		t.Errorf("the VM's changes are %v", c)
	}
	for _, c := range []struct {
		from, to int64
		scope    *serverpb.Scope
		want     []string
	}{
		{0, 1, nil, []string{` headroom "" "30%"`, ` hold "" "1s"`}},
		{1, 0, nil, []string{`id-1 hold "" "3s"`, ` hold "1s" "4s"`}}, // 0 is the latest
		{4, 2, nil, []string{`id-1 hold "3s" ""`, ` hold "4s" "1s"`}},
		{0, 5, &serverpb.Scope{Account: "acme"}, nil},
		{2, 5, &serverpb.Scope{Account: "acme"}, []string{`acme hold "2s" ""`}},
	} {
		got := must[serverpb.CompareConfigResponse](t)(s.api.CompareConfig(ctx, connect.NewRequest(&serverpb.CompareConfigRequest{FromVersion: c.from, ToVersion: c.to, Scope: c.scope})))
		if fmt.Sprint(lines(got.GetEdits())) != fmt.Sprint(c.want) {
			t.Errorf("%d to %d: %v, want %v", c.from, c.to, lines(got.GetEdits()), c.want)
		}
	}
	_, err := s.api.CompareConfig(ctx, connect.NewRequest(&serverpb.CompareConfigRequest{FromVersion: 6}))
	wantCode(t, err, connect.CodeInvalidArgument, "from_version 6: want 0 to 5")
}

func TestRollback(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	back := func(version int64, scope *serverpb.Scope, dry bool) (*serverpb.RollbackConfigResponse, error) {
		r, err := s.api.RollbackConfig(t.Context(), connect.NewRequest(&serverpb.RollbackConfigRequest{Version: version, Scope: scope, ValidateOnly: dry}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	acme := &serverpb.Scope{Account: "acme"}
	before := s.revision(t)
	if r, err := back(2, acme, true); err != nil || len(r.GetEdits()) != 1 || s.revision(t) != before {
		t.Errorf("a rollback on trial: %v, %v; the store went from %d to %d", r, err, before, s.revision(t))
	}
	if r, err := back(2, acme, false); err != nil || r.GetVersion() != 6 {
		t.Errorf("got %v, %v", r, err)
	}
	if value, origin := s.get(t, acme, "hold"); value != "2s" || origin != "account acme" {
		t.Errorf("hold is %s from %s", value, origin)
	}
	if value, _ := s.get(t, nil, "hold"); value != "4s" {
		t.Errorf("another scope went back too: %s", value)
	}
	if r, err := back(0, nil, false); err != nil || r.GetVersion() != 7 {
		t.Errorf("got %v, %v", r, err)
	}
	for _, scope := range []*serverpb.Scope{nil, acme, {Vm: "web"}} {
		if value, origin := s.get(t, scope, "hold"); origin != "default" {
			t.Errorf("%v: hold is %s from %s, want as before the first change", scope, value, origin)
		}
	}
	// Taking it back, with the account gone meanwhile.
	h := connectHost(t, s.url, "node1")
	h.report(&serverpb.ReportRequest{})
	s.removeAccount(t, "acme")
	if r, err := back(6, nil, false); err != nil || r.GetVersion() != 8 {
		t.Errorf("got %v, %v", r, err)
	}
	if value, _ := s.get(t, nil, "headroom"); value != "30%" {
		t.Errorf("headroom is %s", value)
	}
	_, err := s.api.GetConfig(t.Context(), connect.NewRequest(&serverpb.GetConfigRequest{Scope: acme}))
	wantCode(t, err, connect.CodeNotFound, "acme")
}

// A rollback that would not fit with what was set since is refused as any
// change is.
func TestRollbackIsValidated(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	for _, c := range []map[string]string{{"predictionHorizon": "20s"}, {"predictionHorizon": "30s"}} {
		if _, err := s.set(nil, c); err != nil { // versions 6 and 7
			t.Fatal(err)
		}
	}
	if _, err := s.set(&serverpb.Scope{Account: "acme"}, map[string]string{"monitoringInterval": "25s"}); err != nil {
		t.Fatal(err)
	}
	_, err := s.api.RollbackConfig(t.Context(), connect.NewRequest(&serverpb.RollbackConfigRequest{Version: 6, Scope: &serverpb.Scope{}}))
	wantCode(t, err, connect.CodeInvalidArgument, "account acme: monitoringInterval")
}

func TestExplain(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	r := must[serverpb.ExplainConfigResponse](t)(s.api.ExplainConfig(t.Context(), connect.NewRequest(&serverpb.ExplainConfigRequest{Scope: &serverpb.Scope{Vm: "web"}})))
	for _, x := range r.GetParameters() {
		if x.GetParameter().GetKey() != "hold" {
			continue
		}
		set := x.GetSettings()
		if x.GetParameter().GetValue() != "3s" || len(set) != 2 || set[0].GetOrigin() != "global" || set[0].GetVersion() != 4 ||
			set[1].GetOrigin() != "vm web" || set[1].GetVersion() != 3 || set[1].GetAtUnixNano() == 0 || set[1].GetBy() == "" {
			t.Errorf("got %v", x)
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	apply := func(dry bool, layers ...*serverpb.LayerChange) (*serverpb.ApplyConfigResponse, error) {
		r, err := s.api.ApplyConfig(context.Background(), connect.NewRequest(&serverpb.ApplyConfigRequest{Layers: layers, ValidateOnly: dry, Comment: "why"}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	global := &serverpb.LayerChange{Values: map[string]string{"predictionHorizon": "20s"}, Replace: true}
	acme := &serverpb.LayerChange{Scope: &serverpb.Scope{Account: "acme"}, Values: map[string]string{"monitoringInterval": "15s"}}
	before := s.revision(t)
	_, err := apply(false, acme)
	wantCode(t, err, connect.CodeInvalidArgument, "must be at least monitoringInterval")
	_, err = apply(false, global, &serverpb.LayerChange{Scope: &serverpb.Scope{Host: "nowhere"}, Values: map[string]string{"hold": "1s"}})
	wantCode(t, err, connect.CodeNotFound, "nowhere")
	_, err = apply(false, global, global)
	wantCode(t, err, connect.CodeInvalidArgument, "global is given twice")
	want := []string{` headroom "30%" ""`, ` hold "4s" ""`, ` predictionHorizon "" "20s"`, `acme monitoringInterval "" "15s"`}
	if r, err := apply(true, global, acme); err != nil || fmt.Sprint(lines(r.GetEdits())) != fmt.Sprint(want) || s.revision(t) != before {
		t.Errorf("on trial: %v, %v", r, err)
	}
	// Together they fit, whatever the order.
	if r, err := apply(false, acme, global); err != nil || r.GetVersion() != 6 || len(r.GetEdits()) != 4 {
		t.Errorf("got %v, %v", r, err)
	}
	if r, err := apply(false, acme, global); err != nil || r.GetVersion() != 6 || len(r.GetEdits()) != 0 {
		t.Errorf("the same again: %v, %v", r, err)
	}
}

func TestErrorsCarryDetails(t *testing.T) {
	t.Parallel()
	s := versioned(t)
	_, noAccount := s.api.GetAccount(t.Context(), connect.NewRequest(&serverpb.GetAccountRequest{Name: "x"}))
	_, badValue := s.set(nil, map[string]string{"hold": "never", "headroom": "much"})
	_, badName := s.account("A", "")
	_, badMask := s.api.ListHosts(t.Context(), connect.NewRequest(&serverpb.ListHostsRequest{ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"colour"}}}))
	for _, c := range []struct {
		err    error
		reason string
		fields []string
	}{
		{noAccount, "NOT_FOUND", nil},
		{badValue, "INVALID_CONFIGURATION", []string{"values.headroom", "values.hold"}},
		{badName, "INVALID_FIELD", []string{"name"}},
		{badMask, "INVALID_FIELD", []string{"read_mask"}},
	} {
		var rpc *connect.Error
		if !errors.As(c.err, &rpc) {
			t.Errorf("%v is no error of the API", c.err)
			continue
		}
		var reason string
		var fields []string
		for _, d := range rpc.Details() {
			m, err := d.Value()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *errdetails.ErrorInfo:
				reason = m.GetReason()
			case *errdetails.BadRequest:
				for _, v := range m.GetFieldViolations() {
					fields = append(fields, v.GetField())
				}
			}
		}
		if reason != c.reason || fmt.Sprint(fields) != fmt.Sprint(c.fields) {
			t.Errorf("%v: reason %s and fields %v, want %s and %v", c.err, reason, fields, c.reason, c.fields)
		}
	}
}

func TestListsHavePages(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	connectHost(t, s.url, "node2").report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "b", VmName: "n"}}})
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "c", Account: "x"}, {Vm: "a"}}})
	var got []string
	for token, first := "", true; first || token != ""; first = false {
		r := must[serverpb.ListAssociationsResponse](t)(s.api.ListAssociations(t.Context(), connect.NewRequest(&serverpb.ListAssociationsRequest{
			PageSize: 1, PageToken: token, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"account"}}})))
		for _, a := range r.GetAssociations() {
			got = append(got, a.GetHost()+a.GetVm()+a.GetVmName()+a.GetAccount())
		}
		token = r.GetNextPageToken()
	}
	if fmt.Sprint(got) != "[node1a node1cx node2b]" {
		t.Errorf("got %v", got)
	}
	hosts := must[serverpb.ListHostsResponse](t)(s.api.ListHosts(t.Context(), connect.NewRequest(&serverpb.ListHostsRequest{PageSize: 1, ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"vms"}}})))
	if len(hosts.GetHosts()) != 1 || hosts.GetHosts()[0].GetName() != "node1" || hosts.GetHosts()[0].GetVms() != 2 || hosts.GetHosts()[0].GetVersion() != "" {
		t.Errorf("got %v", hosts)
	}
	for _, bad := range []*serverpb.ListHostsRequest{{PageSize: -1}, {PageSize: 10_001}, {PageToken: "?"}} {
		_, err := s.api.ListHosts(t.Context(), connect.NewRequest(bad))
		wantCode(t, err, connect.CodeInvalidArgument, "page_")
	}
}

func TestAccountsByLabelAndAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	connectHost(t, s.url, "node1")
	connectHost(t, s.url, "node2")
	create := func(name, request string, labels map[string]string) (*serverpb.CreateAccountResponse, error) {
		r, err := s.api.CreateAccount(t.Context(), connect.NewRequest(&serverpb.CreateAccountRequest{Name: name, RequestId: request, HostLabels: labels}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	update := func(h *serverpb.Host, path string) error {
		_, err := s.api.UpdateHost(t.Context(), connect.NewRequest(&serverpb.UpdateHostRequest{Host: h, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}}}))
		return err
	}
	zone := map[string]string{"zone": "b"}
	_, err := create("acme", "", zone)
	wantCode(t, err, connect.CodeFailedPrecondition, "zone=b")
	if err := update(&serverpb.Host{Name: "node2", Labels: zone}, "labels"); err != nil {
		t.Fatal(err)
	}
	a, err := create("acme", "r1", zone)
	if err != nil || a.GetAccount().GetHost() != "node2" || a.GetWhyHost() == "" {
		t.Fatalf("got %v, %v", a, err)
	}
	if again, err := create("acme", "r1", zone); err != nil || again.GetAccount().GetCreatedUnixNano() != a.GetAccount().GetCreatedUnixNano() {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	_, err = create("acme", "r2", zone)
	wantCode(t, err, connect.CodeAlreadyExists, "acme")
	if err := update(&serverpb.Host{Name: "node2", Cordoned: true}, "cordoned"); err != nil {
		t.Fatal(err)
	}
	if h := s.host(t, "node2"); !h.GetCordoned() || h.GetLabels()["zone"] != "b" {
		t.Errorf("got %v", h)
	}
	_, err = create("beta", "", zone)
	wantCode(t, err, connect.CodeFailedPrecondition, "not cordoned")
	wantCode(t, update(&serverpb.Host{Name: "node2"}, "name"), connect.CodeInvalidArgument, "labels or cordoned")
	wantCode(t, update(&serverpb.Host{Name: "node9"}, "labels"), connect.CodeNotFound, "node9")
	wantCode(t, update(&serverpb.Host{Name: "node2", Labels: map[string]string{"a b": "c"}}, "labels"), connect.CodeInvalidArgument, `"a b"`)
	u, err := s.api.UpdateAccount(t.Context(), connect.NewRequest(&serverpb.UpdateAccountRequest{
		Account: &serverpb.Account{Name: "acme", Host: "node1"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"host"}}}))
	if err != nil || u.Msg.GetAccount().GetHost() != "node1" || u.Msg.GetAccount().GetHostLabels()["zone"] != "b" {
		t.Errorf("got %v, %v", u, err)
	}
}
