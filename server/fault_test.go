package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// Every token that is not good is refused with why, and never shown.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	s, elsewhere := serveTLS(t, Options{}), serveTLS(t, Options{})
	create := func(s *running) trust.Token {
		return parsed(t, must[serverpb.CreateTokenResponse](t)(s.admin().CreateToken(t.Context(), connect.NewRequest(
			&serverpb.CreateTokenRequest{Name: "ci", Role: "admin", LifetimeSeconds: 3600}))).GetToken())
	}
	wrong := create(s)
	wrong.Secret = strings.Repeat("a", 26)
	foreign := create(elsewhere)
	expired := create(s)
	key := keyOf(tokenPrefix, expired.ID)
	got, err := s.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	one := map[string]accessToken{}
	if err := readJSON(got.Kvs[0].Value, one, ""); err != nil {
		t.Fatal(err)
	}
	stored, yesterday := one[""], time.Now().Add(-24*time.Hour)
	stored.Expires = &yesterday
	if _, err := s.store.Put(t.Context(), key, encodeJSON(stored)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to know that the token has expired", func() bool {
		known := false
		s.mirror.read(func(v *view) { e := v.tokens[expired.ID].Expires; known = e != nil && e.Before(time.Now()) })
		return known
	})
	for name, c := range map[string]struct{ token, says string }{
		"wrong":            {wrong.Text(), "is not known: it was removed, or is of another fleet"},
		"expired":          {expired.Text(), "of ci has expired at"},
		"of another fleet": {foreign.Text(), "is not known: it was removed, or is of another fleet"},
		"for a host":       {s.joinToken(t, ""), "is for a host to join with"},
		"no token":         {"secret", "token"},
	} {
		t.Run(name, func(t *testing.T) {
			api := serverpbconnect.NewManagementServiceClient(s.with(c.token), s.url)
			_, err := api.SetConfig(t.Context(), connect.NewRequest(&serverpb.SetConfigRequest{Values: map[string]string{"hold": "9s"}}))
			wantCode(t, err, connect.CodeUnauthenticated, c.says)
			if parsed, e := trust.ParseToken(c.token); e == nil && err != nil && strings.Contains(err.Error(), parsed.Secret) {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
	if value, _ := s.get(t, nil, "hold"); value == "9s" {
		t.Error("one of them changed something")
	}
}

// A host and a server of different fleets have nothing to do with each other.
func TestHostOfAnotherFleet(t *testing.T) {
	t.Parallel()
	ours, theirs := serveTLS(t, Options{}), serveTLS(t, Options{})
	identity := theirs.mustJoin(t, "node1")
	h := startHost(t, hostlink.Servers{URLs: []string{ours.url}, Identity: identity}, "node1")
	eventually(t, "the host to see whose server it is", func() bool { return strings.Contains(h.currentStatus(), "the server is of another fleet") })
	if ours.host(t, "node1") != nil {
		t.Error("the server knows the host")
	}
	if d, _ := h.last(); d != nil {
		t.Errorf("the host was told %v", d)
	}
	h.stop()
	connectBy(t, hostlink.Servers{URLs: []string{theirs.url}, Identity: identity}, "node1")
}

// Two hosts may claim one VM, as while it is moved or by a copied disk: it
// counts once, where the host is connected, and both know its configuration.
func TestTwoHostsClaimOneVM(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	one, two := connectHost(t, s.url, "node1"), connectHost(t, s.url, "node2")
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	claim := &serverpb.Association{Vm: "id-1", VmName: "web", Account: "acme"}
	one.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{claim}})
	two.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{claim}})
	if _, err := s.set(&serverpb.Scope{Vm: "web"}, map[string]string{"hold": "7s"}); err != nil {
		t.Fatalf("by its name, which is that of one VM: %v", err)
	}
	knows := func(d *serverpb.DesiredState) bool { return d.GetByVm()["id-1"].GetValues()["hold"] == "7s" }
	one.until("the VM's layer", knows)
	two.until("the VM's layer", knows)
	list := must[serverpb.ListAssociationsResponse](t)(s.api.ListAssociations(t.Context(), connect.NewRequest(&serverpb.ListAssociationsRequest{})))
	if n := len(list.GetAssociations()); n != 2 {
		t.Errorf("%d associations are shown, want both claims", n)
	}
	count := func() (n int, at string) {
		s.mirror.read(func(v *view) {
			for m := range v.vms() {
				n, at = n+1, m.host
			}
		})
		return n, at
	}
	if n, _ := count(); n != 1 {
		t.Errorf("it counts %d times", n)
	}
	two.stop()
	eventually(t, "it to count where the host is connected", func() bool { n, at := count(); return n == 1 && at == "node1" })
	one.until("still the VM's layer", knows)
}

// What is configured for a VM outlives it, and can be seen and removed.
func TestConfigurationOfAVMThatIsGone(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	const id = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
	there := &serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: id, VmName: "web"}}}
	h.report(there)
	if _, err := s.set(&serverpb.Scope{Vm: "web"}, map[string]string{"hold": "7s"}); err != nil {
		t.Fatal(err)
	}
	h.report(&serverpb.ReportRequest{})
	eventually(t, "the VM to be gone", func() bool {
		list := must[serverpb.ListAssociationsResponse](t)(s.api.ListAssociations(t.Context(), connect.NewRequest(&serverpb.ListAssociationsRequest{})))
		return len(list.GetAssociations()) == 0
	})
	for _, vm := range []string{id, "web"} {
		if value, _ := s.get(t, &serverpb.Scope{Vm: vm}, "hold"); value != "7s" {
			t.Errorf("of %s, which is gone: hold %s", vm, value)
		}
	}
	_, err := s.set(&serverpb.Scope{Vm: "nosuch"}, map[string]string{"hold": "1s"})
	wantCode(t, err, connect.CodeNotFound, `"nosuch"`)
	h.report(there)
	h.until("the layer of the VM that is back", func(d *serverpb.DesiredState) bool { return d.GetByVm()[id].GetValues()["hold"] == "7s" })
	h.report(&serverpb.ReportRequest{})
	if _, err := s.set(&serverpb.Scope{Vm: id}, map[string]string{"hold": ""}); err != nil {
		t.Fatal(err)
	}
	h.until("no layer", func(d *serverpb.DesiredState) bool { return len(d.GetByVm()) == 0 })
}

// A store that takes no more is told of by its name. Hosts stay, what is known
// can be read, and when there is room again all goes on.
func TestStoreIsFull(t *testing.T) {
	t.Parallel()
	e := &etcdProcess{t: t, dir: filepath.Join(t.TempDir(), "etcd"), address: "http://" + freeAddress(t), env: []string{"GNOMON_TEST_ETCD_QUOTA=2000000"}}
	e.start()
	t.Cleanup(e.kill)
	s := serve(t, Options{EtcdEndpoints: []string{e.address}})
	h := connectHost(t, s.url, "node1")
	if _, err := s.set(nil, map[string]string{"hold": "7s"}); err != nil {
		t.Fatal(err)
	}
	h.until("hold", global(map[string]string{"hold": "7s"}))
	direct := e.client()
	defer direct.Close()
	var last *clientv3.PutResponse
	var err error
	for i := range 1000 {
		r, failed := direct.Put(t.Context(), "/other/filler", strings.Repeat(fmt.Sprint(i%10), 100_000))
		if err = failed; err != nil {
			break
		}
		last = r
	}
	if err == nil {
		t.Fatal("the store took everything")
	}
	_, err = s.set(nil, map[string]string{"hold": "8s"})
	wantCode(t, err, connect.CodeResourceExhausted, "the store is full")
	if got := reasonOf(err); got != reasonStoreFull {
		t.Errorf("the reason is %q", got)
	}
	if value, _ := s.get(t, nil, "hold"); value != "7s" || h.currentStatus() != hostlink.Connected {
		t.Errorf("hold is %s, and the host %s", value, h.currentStatus())
	}

	if _, err := direct.Compact(t.Context(), last.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Delete(t.Context(), "/other/filler"); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Defragment(t.Context(), e.address); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes to be taken again", func() bool { _, err := s.set(nil, map[string]string{"hold": "9s"}); return err == nil })
	h.until("the change after", global(map[string]string{"hold": "9s"}))
}

// A store whose user may only read is told of by what to do, and keeps nobody
// from what is known.
func TestStoreIsReadOnly(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, "")
	first := serve(t, Options{EtcdEndpoints: []string{e.address}})
	connectHost(t, first.url, "node1")
	if _, err := first.set(nil, map[string]string{"hold": "7s"}); err != nil {
		t.Fatal(err)
	}
	first.stop()
	root := e.client()
	defer root.Close()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := root.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "reader", "/gnomon/", clientv3.GetPrefixRangeEnd("/gnomon/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "gnomon", "secret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "gnomon", "reader"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, Options{EtcdEndpoints: []string{e.address}, EtcdUsername: "gnomon", EtcdPassword: "secret"})
	_, err := s.set(nil, map[string]string{"hold": "8s"})
	wantCode(t, err, connect.CodeUnavailable, "read and write permission for all keys from /gnomon/")
	if got := reasonOf(err); got != reasonStoreReadOnly {
		t.Errorf("the reason is %q", got)
	}
	if value, _ := s.get(t, nil, "hold"); value != "7s" {
		t.Errorf("hold is %s", value)
	}
	h := startHost(t, hostlink.Servers{URLs: []string{s.url}}, "node1")
	eventually(t, "the host to be told why", func() bool { return strings.Contains(h.currentStatus(), "the store may not be written") })
}

// A store that answers nothing for a while holds callers up for seconds only,
// and loses no host.
func TestStoreIsSlow(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, "")
	p := startProxy(t, e.address)
	s := serve(t, Options{EtcdEndpoints: []string{"http://" + p.l.Addr().String()}})
	h := connectHost(t, s.url, "node1")
	if _, err := s.set(nil, map[string]string{"hold": "7s"}); err != nil {
		t.Fatal(err)
	}
	h.until("hold", global(map[string]string{"hold": "7s"}))
	p.held.Lock()
	_, err := s.set(nil, map[string]string{"hold": "8s"})
	wantCode(t, err, connect.CodeUnavailable, "the store does not answer")
	if h.currentStatus() != hostlink.Connected {
		t.Errorf("the host is %s", h.currentStatus())
	}
	p.held.Unlock()
	eventually(t, "changes to be taken again", func() bool { _, err := s.set(nil, map[string]string{"hold": "9s"}); return err == nil })
	h.until("the change after", global(map[string]string{"hold": "9s"}))
	eventually(t, "the host to be online", func() bool { return s.host(t, "node1").GetConnected() })
}

// An older host knows less of what it may say; it is served as ever.
func TestOlderHost(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	client := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, s.url)
	stream, err := client.Watch(t.Context(), connect.NewRequest(&serverpb.WatchRequest{Host: "old", Version: "0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	if _, err := client.Report(t.Context(), connect.NewRequest(&serverpb.ReportRequest{Host: "old", Associations: []*serverpb.Association{{Vm: "x", VmName: "web"}}})); err != nil {
		t.Fatal(err)
	}
	if h := s.host(t, "old"); !h.GetConnected() || h.GetVms() != 1 || h.GetTakesOrders() || h.GetVersion() != "0.1" {
		t.Errorf("got %v", h)
	}
	if _, err := s.account("acme", ""); err != nil {
		t.Errorf("an account on it: %v", err)
	}
	_, err = s.deploy(t, &serverpb.DeployVMRequest{Definition: definitionOf("a"), Account: "acme"})
	wantCode(t, err, connect.CodeFailedPrecondition, "deploys VMs")
}
