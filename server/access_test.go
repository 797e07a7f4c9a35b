package server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/people"
	"github.com/gnomon-vm/gnomon/server/people/peopletest"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// inside calls a server's handler as root on its machine does.
type inside struct{ s *Server }

// RoundTrip implements http.RoundTripper, for calls without streams.
func (i inside) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, func() (peer, bool) { return peer{0}, true }))
	r.RequestURI = r.URL.RequestURI()
	i.s.Handler().ServeHTTP(w, r)
	return w.Result(), nil
}

// everything is all that the store holds.
func (r *running) everything(t *testing.T) []*mvccpb.KeyValue {
	t.Helper()
	g, err := r.store.Get(t.Context(), "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	return g.Kvs
}

// bearerTransport calls with a token.
type bearerTransport struct {
	http.RoundTripper
	token string
}

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// as returns a client that calls over TLS with a new token.
func (r *running) as(t *testing.T, role, account string) *http.Client {
	t.Helper()
	token := must[serverpb.CreateTokenResponse](t)(r.admin().CreateToken(t.Context(), connect.NewRequest(
		&serverpb.CreateTokenRequest{Name: role + account, Role: role, Account: account}))).GetToken()
	return r.with(token)
}

func (r *running) with(token string) *http.Client {
	c := hostlink.NewHTTPClient(trust.PinnedTLS(r.authority.Fingerprint(), nil, nil))
	c.Transport = bearerTransport{c.Transport, token}
	return c
}

func TestRolesOverTheNetwork(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	nobody := hostlink.NewHTTPClient(trust.PinnedTLS(s.authority.Fingerprint(), nil, nil))
	look := func(c *http.Client) error {
		_, err := serverpbconnect.NewManagementServiceClient(c, s.url).ListHosts(t.Context(), connect.NewRequest(&serverpb.ListHostsRequest{}))
		return err
	}
	change := func(c *http.Client) error {
		_, err := serverpbconnect.NewManagementServiceClient(c, s.url).SetConfig(t.Context(), connect.NewRequest(&serverpb.SetConfigRequest{Values: map[string]string{"hold": "3s"}}))
		return err
	}
	rule := func(c *http.Client) error {
		_, err := serverpbconnect.NewAccessServiceClient(c, s.url).ListTokens(t.Context(), connect.NewRequest(&serverpb.ListTokensRequest{}))
		return err
	}
	for _, c := range []struct {
		name               string
		client             *http.Client
		look, change, rule connect.Code // 0 for may
	}{
		{"nobody", nobody, connect.CodeUnauthenticated, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"viewer", s.as(t, "viewer", ""), 0, connect.CodePermissionDenied, connect.CodePermissionDenied},
		{"operator", s.as(t, "operator", ""), 0, 0, connect.CodePermissionDenied},
		{"admin", s.as(t, "admin", ""), 0, 0, 0},
		{"garbage", s.with("garbage"), connect.CodeUnauthenticated, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"another's", s.with(trust.NewToken(trust.AccessKind, s.authority.Fingerprint()).Text()), connect.CodeUnauthenticated, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		{"join token", s.with(s.joinToken(t, "")), connect.CodeUnauthenticated, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
	} {
		for what, got := range map[string]struct {
			err  error
			want connect.Code
		}{"look": {look(c.client), c.look}, "change": {change(c.client), c.change}, "rule": {rule(c.client), c.rule}} {
			if got.want == 0 && got.err != nil || got.want != 0 && connect.CodeOf(got.err) != got.want {
				t.Errorf("%s to %s: %v, want %v", c.name, what, got.err, got.want)
			}
		}
		if r, err := c.client.Get(s.url + "/metrics"); err != nil || (r.StatusCode == http.StatusOK) != (c.look == 0) {
			t.Errorf("%s to read metrics: %v, %v", c.name, r.StatusCode, err)
		}
		if r, err := c.client.Get(s.url + "/healthz"); err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("%s to ask for health: %v", c.name, err)
		}
	}
}

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	r := must[serverpb.CreateTokenResponse](t)(s.admin().CreateToken(t.Context(), connect.NewRequest(&serverpb.CreateTokenRequest{Name: "ci", Role: "viewer"})))
	api := serverpbconnect.NewAccessServiceClient(s.with(r.GetToken()), s.url)
	who := must[serverpb.WhoAmIResponse](t)(api.WhoAmI(t.Context(), connect.NewRequest(&serverpb.WhoAmIRequest{})))
	if who.GetName() != "token ci" || who.GetRole() != "viewer" {
		t.Errorf("it is %v", who)
	}
	must[serverpb.DeleteTokenResponse](t)(s.admin().DeleteToken(t.Context(), connect.NewRequest(&serverpb.DeleteTokenRequest{Id: r.GetInfo().GetId()})))
	eventually(t, "the token to be refused", func() bool {
		_, err := api.WhoAmI(t.Context(), connect.NewRequest(&serverpb.WhoAmIRequest{}))
		return connect.CodeOf(err) == connect.CodeUnauthenticated && strings.Contains(err.Error(), "is not known")
	})
	for want, bad := range map[string]*serverpb.CreateTokenRequest{
		"name":                       {Role: "viewer"},
		`role "root": want viewer`:   {Name: "x", Role: "root"},
		"one account only is a view": {Name: "x", Role: "admin", Account: "acme"},
		`account "acme" does not`:    {Name: "x", Role: "viewer", Account: "acme"},
		"lifetime_seconds -1":        {Name: "x", Role: "viewer", LifetimeSeconds: -1},
	} {
		if _, err := s.admin().CreateToken(t.Context(), connect.NewRequest(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, err, want)
		}
	}
}

func TestAccountTokenSeesItsAccountAlone(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	h := connectBy(t, hostlink.Servers{URLs: []string{s.url}, Identity: s.mustJoin(t, "node1")}, "node1")
	admin := serverpbconnect.NewManagementServiceClient(s.as(t, "admin", ""), s.url)
	for _, name := range []string{"acme", "other"} {
		must[serverpb.CreateAccountResponse](t)(admin.CreateAccount(t.Context(), connect.NewRequest(&serverpb.CreateAccountRequest{Name: name})))
	}
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "a", VmName: "a", Account: "acme"}, {Vm: "o", VmName: "o", Account: "other"}}})
	customer := serverpbconnect.NewManagementServiceClient(s.as(t, "viewer", "acme"), s.url)
	eventually(t, "the customer to see its VM alone", func() bool {
		l, err := customer.ListAssociations(t.Context(), connect.NewRequest(&serverpb.ListAssociationsRequest{}))
		return err == nil && len(l.Msg.GetAssociations()) == 1 && l.Msg.GetAssociations()[0].GetVm() == "a"
	})
	accounts := must[serverpb.ListAccountsResponse](t)(customer.ListAccounts(t.Context(), connect.NewRequest(&serverpb.ListAccountsRequest{})))
	if len(accounts.GetAccounts()) != 1 || accounts.GetAccounts()[0].GetName() != "acme" {
		t.Errorf("it sees %v", accounts)
	}
	must[serverpb.GetConfigResponse](t)(customer.GetConfig(t.Context(), connect.NewRequest(&serverpb.GetConfigRequest{Scope: &serverpb.Scope{Vm: "a"}})))
	for _, scope := range []*serverpb.Scope{{Vm: "o"}, {Account: "other"}, {Host: "node1"}} {
		_, err := customer.GetConfig(t.Context(), connect.NewRequest(&serverpb.GetConfigRequest{Scope: scope}))
		wantCode(t, err, connect.CodeNotFound, "")
	}
	_, err := customer.ListHosts(t.Context(), connect.NewRequest(&serverpb.ListHostsRequest{}))
	wantCode(t, err, connect.CodePermissionDenied, "sees the account acme alone")
	_, err = customer.SetConfig(t.Context(), connect.NewRequest(&serverpb.SetConfigRequest{Scope: &serverpb.Scope{Vm: "a"}, Values: map[string]string{"hold": "1s"}}))
	wantCode(t, err, connect.CodePermissionDenied, "")
}

func TestChangesAreLogged(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	operator := serverpbconnect.NewManagementServiceClient(s.as(t, "operator", ""), s.url)
	for _, hold := range []string{"3s", "4s", "4s", "never"} {
		_, _ = operator.SetConfig(t.Context(), connect.NewRequest(&serverpb.SetConfigRequest{Values: map[string]string{"hold": hold}}))
	}
	identity := s.mustJoin(t, "node1")
	connectBy(t, hostlink.Servers{URLs: []string{s.url}, Identity: identity}, "node1").report(&serverpb.ReportRequest{})
	list := must[serverpb.ListChangesResponse](t)(s.admin().ListChanges(t.Context(), connect.NewRequest(&serverpb.ListChangesRequest{})))
	var got []string
	for _, c := range list.GetChanges() {
		got = append(got, c.GetWho()+" "+c.GetWhat())
	}
	want := []string{"host node1 with join token", "local root CreateJoinToken", "token operator SetConfig", "token operator SetConfig", "local root CreateToken"}
	if len(got) != len(want) {
		t.Fatalf("%d changes: %q", len(got), got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("change %d is %q, want %q", i, got[i], want[i])
		}
	}
	d := list.GetChanges()[2].GetDifferences()
	if len(d) != 1 || d[0].GetKey() != "config/global" || !strings.Contains(d[0].GetBefore(), "3s") || !strings.Contains(d[0].GetAfter(), "4s") {
		t.Errorf("the second change of hold: %v", d)
	}

	var paged []string
	for token := ""; ; {
		page := must[serverpb.ListChangesResponse](t)(s.admin().ListChanges(t.Context(), connect.NewRequest(&serverpb.ListChangesRequest{PageSize: 2, PageToken: token})))
		for _, c := range page.GetChanges() {
			paged = append(paged, c.GetWho()+" "+c.GetWhat())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if strings.Join(paged, "|") != strings.Join(got, "|") {
		t.Errorf("in pages it is %q", paged)
	}
	_, err := s.admin().ListChanges(t.Context(), connect.NewRequest(&serverpb.ListChangesRequest{PageToken: "x"}))
	wantCode(t, err, connect.CodeInvalidArgument, "page_token")
}

// On the machine itself it counts which user calls.
func TestLocalCallers(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	get := func(uid uint32, header string) string {
		// A shell, since another user cannot run this program.
		script := fmt.Sprintf(`exec 3<>/dev/tcp/%s && printf 'GET /metrics HTTP/1.0\r\n%s\r\n' >&3 && head -1 <&3`,
			strings.Replace(strings.TrimPrefix(s.url, "http://"), ":", "/", 1), header)
		cmd := exec.Command("bash", "-c", script)
		if uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.Bytes())
		}
		return strings.TrimSpace(string(out))
	}
	if got := get(0, ""); !strings.Contains(got, "200") {
		t.Errorf("the server's own user: %s", got)
	}
	if got := get(0, `X-Forwarded-For: 10.0.0.9\r\n`); !strings.Contains(got, "401") {
		t.Errorf("a proxy of the server's own user: %s", got)
	}
	if os.Geteuid() == 0 {
		if got := get(65534, ""); !strings.Contains(got, "401") {
			t.Errorf("another user: %s", got)
		}
	}

	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	web := NewHTTPServer(s.Handler())
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	api := serverpbconnect.NewAccessServiceClient(hostlink.NewHTTPClient(nil), hostlink.BaseURL("unix://"+path))
	who := must[serverpb.WhoAmIResponse](t)(api.WhoAmI(t.Context(), connect.NewRequest(&serverpb.WhoAmIRequest{})))
	if !strings.HasPrefix(who.GetName(), "local ") || who.GetRole() != "admin" {
		t.Errorf("over the socket: %v", who)
	}
}

// People who log in are known by the provider's tokens; what is wrong with one is
// told, and a provider that is away is no reason to refuse somebody.
func TestLoggedIn(t *testing.T) {
	t.Parallel()
	provider := peopletest.Start(t, map[string]any{"sub": "ann", "groups": "ops"})
	s := serveTLS(t, Options{People: &people.Provider{Issuer: provider.URL, Client: peopletest.Client, Claim: "groups",
		Grants: map[string]people.Grant{"ops": {Role: access.Operator}}}})
	whoAmI := func(on *running, token string) (string, error) {
		r, err := serverpbconnect.NewAccessServiceClient(on.with(token), on.url).WhoAmI(t.Context(), connect.NewRequest(&serverpb.WhoAmIRequest{}))
		if err != nil {
			return "", err
		}
		return r.Msg.GetName() + ", " + r.Msg.GetRole(), nil
	}
	fails := func(what string, on *running, token string, code connect.Code, says string) {
		t.Helper()
		who, err := whoAmI(on, token)
		if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %q, %v; want %v, %q", what, who, err, code, says)
		}
	}
	good := provider.Token(nil)
	if who, err := whoAmI(s, good); who != "person ann, operator" || err != nil {
		t.Errorf("%q, %v", who, err)
	}
	fails("for another program", s, provider.Token(map[string]any{"aud": "wiki"}), connect.CodeUnauthenticated, "for another program")
	fails("without a role", s, provider.Token(map[string]any{"groups": "guests"}), connect.CodeUnauthenticated, "has a role here")
	fails("without a provider", serveTLS(t, Options{}), good, connect.CodeUnauthenticated, "--oidc-issuer")
	provider.Stop()
	if who, err := whoAmI(s, good); err != nil {
		t.Errorf("a known key of a provider that is away: %q, %v", who, err)
	}
	provider.Rotate()
	fails("a new key of a provider that is away", s, provider.Token(nil), connect.CodeUnavailable, "does not answer")
}
