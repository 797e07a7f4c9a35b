package server

import (
	"context"
	"errors"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

func (r *running) removeHost(name string) error {
	_, err := r.api.DeleteHost(context.Background(), connect.NewRequest(&serverpb.DeleteHostRequest{Name: name}))
	return err
}

func (r *running) removeAccount(t *testing.T, name string) {
	t.Helper()
	must[serverpb.DeleteAccountResponse](t)(r.api.DeleteAccount(context.Background(), connect.NewRequest(&serverpb.DeleteAccountRequest{Name: name})))
}

func TestDeleteHost(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	wantCode(t, s.removeHost("node1"), connect.CodeNotFound, "none has ever connected")
	h := connectHost(t, s.url, "node1")
	connectHost(t, s.url, "node2")
	report := &serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "id-1", VmName: "web"}}}
	h.report(report)
	for _, name := range []string{"beta", "acme"} {
		if _, err := s.account(name, "node1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.set(&serverpb.Scope{Host: "node1"}, map[string]string{"hold": "3s"}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.removeHost("node1"), connect.CodeFailedPrecondition, `"node1" is connected: stop its daemon first`)
	h.stop()
	eventually(t, "node1 to be away", func() bool { return !s.host(t, "node1").GetConnected() })
	wantCode(t, s.removeHost("node1"), connect.CodeFailedPrecondition, "accounts (acme, beta)")
	wantCode(t, s.removeHost("node3"), connect.CodeNotFound, "there are node1, node2")
	s.removeAccount(t, "acme")
	s.removeAccount(t, "beta")
	if err := s.removeHost("node1"); err != nil {
		t.Fatal(err)
	}
	if s.host(t, "node1") != nil || s.host(t, "node2") == nil {
		t.Error("want node1 gone and node2 there")
	}
	l := must[serverpb.ListAssociationsResponse](t)(s.api.ListAssociations(t.Context(), connect.NewRequest(&serverpb.ListAssociationsRequest{})))
	if len(l.GetAssociations()) != 0 {
		t.Errorf("what it reported is still there: %v", l.GetAssociations())
	}
	_, err := s.account("acme", "node1")
	wantCode(t, err, connect.CodeNotFound, `"node1" is not known`)
	report.Host = "node1"
	if err := h.link.Report(t.Context(), report); connect.CodeOf(errors.Unwrap(err)) != connect.CodeFailedPrecondition {
		t.Errorf("a report of a host that was removed: %v", err)
	}

	h = connectHost(t, s.url, "node1")
	h.report(report)
	if value, origin := s.get(t, &serverpb.Scope{Host: "node1"}, "hold"); origin != "default" {
		t.Errorf("a host of that name came back to hold=%s from %s", value, origin)
	}
}

// No account is left with a host that was removed at the same time.
func TestDeleteHostRacesWithAccounts(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	for range 10 {
		h := connectHost(t, s.url, "node1")
		h.stop()
		eventually(t, "node1 to be away", func() bool { return !s.host(t, "node1").GetConnected() })
		var created, removed error
		var both sync.WaitGroup
		both.Go(func() { _, created = s.account("acme", "node1") })
		both.Go(func() { removed = s.removeHost("node1") })
		both.Wait()
		if (created == nil) == (removed == nil) {
			t.Fatalf("account created: %v; host removed: %v; want one of both", created, removed)
		}
		if created == nil {
			s.removeAccount(t, "acme")
		}
	}
}

// What many hosts write at once waits in line: operators do not, and a host that
// gives up leaves its place.
func TestHostsWriteInLine(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	if err := s.hostLine.Acquire(t.Context(), hostWrites); err != nil {
		t.Fatal(err)
	}
	gone := startHost(t, hostlink.Servers{URLs: []string{s.url}}, "gone")
	h := startHost(t, hostlink.Servers{URLs: []string{s.url}}, "node1")
	connected := func() float64 { return testutil.ToFloat64(s.metrics.connected) }
	eventually(t, "both to wait", func() bool { return connected() == 2 })
	if _, err := s.set(nil, map[string]string{"hold": "3s"}); err != nil {
		t.Errorf("an operator waits with the hosts: %v", err)
	}
	gone.stop()
	eventually(t, "one to give up", func() bool { return connected() == 1 })
	if d, n := h.last(); n > 0 {
		t.Errorf("a host was told %v out of turn", d)
	}
	s.hostLine.Release(hostWrites)
	h.until("its turn", func(d *serverpb.DesiredState) bool { return d.GetGlobal()["hold"] == "3s" })
	if !s.hostLine.TryAcquire(hostWrites) {
		t.Error("a place in the line is still taken")
	}
}
