package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// serveTLS serves as to other machines: whoever calls has to be known.
func serveTLS(t *testing.T, o Options) *running {
	t.Helper()
	if o.FleetKey == "" {
		o.FleetKey = filepath.Join(t.TempDir(), "fleet.key")
	}
	return serve(t, o)
}

// admin calls as an administrator, past the network.
func (r *running) admin() serverpbconnect.AccessServiceClient {
	return serverpbconnect.NewAccessServiceClient(&http.Client{Transport: inside{r.Server}}, "http://inside")
}

func (r *running) joinToken(t *testing.T, host string) string {
	t.Helper()
	return must[serverpb.CreateJoinTokenResponse](t)(r.admin().CreateJoinToken(t.Context(), connect.NewRequest(&serverpb.CreateJoinTokenRequest{Host: host}))).GetToken()
}

// join is `gnomon host join` with a token's text.
func (r *running) join(t *testing.T, token, host, path string) (*trust.Identity, error) {
	t.Helper()
	parsed, err := trust.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	return hostlink.Join(t.Context(), []string{r.url}, parsed, host, path)
}

func (r *running) mustJoin(t *testing.T, host string) *trust.Identity {
	t.Helper()
	i, err := r.join(t, r.joinToken(t, ""), host, filepath.Join(t.TempDir(), "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestHostJoins(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	path := filepath.Join(t.TempDir(), "identity.json")
	token := s.joinToken(t, "node1")
	identity, err := s.join(t, token, "node1", path)
	if err != nil {
		t.Fatal(err)
	}
	h := connectBy(t, hostlink.Servers{URLs: []string{s.url}, Identity: identity}, "node1")
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "x"}}})
	err = h.link.Report(t.Context(), &serverpb.ReportRequest{Host: "node2"})
	if err == nil || !strings.Contains(err.Error(), `host node1 cannot speak for host "node2"`) {
		t.Errorf("a report in another's name: %v", err)
	}
	if _, err := s.join(t, token, "node1", path); err != nil {
		t.Errorf("joining again with the same token and key, as after a lost answer: %v", err)
	}

	other := startHost(t, hostlink.Servers{URLs: []string{s.url}, Identity: identity}, "node2")
	eventually(t, "the other name to be refused", func() bool { return strings.Contains(other.currentStatus(), "cannot speak for") })
	unknown := startHost(t, hostlink.Servers{URLs: []string{s.url}, Identity: nil}, "node1")
	eventually(t, "a host without a certificate to be refused", func() bool { return unknown.currentStatus() != "" })
	if h.currentStatus() != hostlink.Connected {
		t.Errorf("the host that joined is %s", h.currentStatus())
	}
}

func TestBadJoins(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	dir := t.TempDir()
	expired := s.joinToken(t, "")
	expire(t, s, expired)
	used := s.joinToken(t, "")
	if _, err := s.join(t, used, "node1", filepath.Join(dir, "node1")); err != nil {
		t.Fatal(err)
	}
	removed := s.joinToken(t, "")
	must[serverpb.DeleteJoinTokenResponse](t)(s.admin().DeleteJoinToken(t.Context(), connect.NewRequest(&serverpb.DeleteJoinTokenRequest{Id: parsed(t, removed).ID})))
	wrong := parsed(t, s.joinToken(t, ""))
	wrong.Secret = strings.Repeat("a", 26)
	elsewhere := serveTLS(t, Options{})
	personal := must[serverpb.CreateTokenResponse](t)(s.admin().CreateToken(t.Context(), connect.NewRequest(&serverpb.CreateTokenRequest{Name: "x", Role: "admin"}))).GetToken()
	for name, c := range map[string]struct {
		token, host string
		code        connect.Code
		want        string
	}{
		"expired":          {expired, "node2", connect.CodeUnauthenticated, "expired at"},
		"used":             {used, "node2", connect.CodeUnauthenticated, `used already, by host "node1"`},
		"used by its name": {used, "node1", connect.CodeUnauthenticated, `used already, by host "node1"`},
		"removed":          {removed, "node2", connect.CodeUnauthenticated, "is not known: it was removed"},
		"wrong":            {wrong.Text(), "node2", connect.CodeUnauthenticated, "or mistyped"},
		"of another fleet": {elsewhere.joinToken(t, ""), "node2", connect.CodeUnavailable, "the server is of another fleet"},
		"of a person":      {personal, "node2", connect.CodeUnauthenticated, "is a person's"},
		"for another host": {s.joinToken(t, "node3"), "node2", connect.CodePermissionDenied, `is for host "node3", not "node2"`},
		"a name taken":     {s.joinToken(t, ""), "node1", connect.CodeAlreadyExists, `the name "node1" is taken, by a host that joined at`},
		"no name":          {s.joinToken(t, ""), "", connect.CodeInvalidArgument, "host name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.join(t, c.token, c.host, filepath.Join(dir, "other", name))
			wantCode(t, err, c.code, c.want)
			if err != nil && strings.Contains(err.Error(), parsed(t, c.token).Secret) {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
	if s.host(t, "node2") != nil {
		t.Error("a host that was refused is known")
	}
}

func parsed(t *testing.T, text string) trust.Token {
	t.Helper()
	token, err := trust.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// expire has a token be of yesterday.
func expire(t *testing.T, s *running, text string) {
	t.Helper()
	key := keyOf(joinTokenPrefix, parsed(t, text).ID)
	r, err := s.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	one := map[string]joinToken{}
	if err := readJSON(r.Kvs[0].Value, one, ""); err != nil {
		t.Fatal(err)
	}
	j := one[""]
	j.Expires = time.Now().Add(-24 * time.Hour)
	if _, err := s.store.Put(t.Context(), key, encodeJSON(j)); err != nil {
		t.Fatal(err)
	}
}

// A host that is revoked is cut off at once, and back when it joins again, its
// daemon running all the while.
func TestRevokedAndBack(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	path := filepath.Join(t.TempDir(), "identity.json")
	identity, err := s.join(t, s.joinToken(t, ""), "node1", path)
	if err != nil {
		t.Fatal(err)
	}
	h := connectBy(t, hostlink.Servers{URLs: []string{s.url}, Identity: identity}, "node1")
	must[serverpb.RevokeHostResponse](t)(s.admin().RevokeHost(t.Context(), connect.NewRequest(&serverpb.RevokeHostRequest{Name: "node1"})))
	eventually(t, "the host to be cut off", func() bool { return strings.Contains(h.currentStatus(), "was revoked") })
	if err := h.link.Report(t.Context(), &serverpb.ReportRequest{Host: "node1"}); err == nil {
		t.Error("it reports nevertheless")
	}
	_, err = s.admin().RevokeHost(t.Context(), connect.NewRequest(&serverpb.RevokeHostRequest{Name: "node1"}))
	wantCode(t, err, connect.CodeNotFound, "node1")

	if err := os.Remove(path); err != nil { // a new key, too
		t.Fatal(err)
	}
	if _, err := s.join(t, s.joinToken(t, ""), "node1", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host to be back", func() bool { return h.currentStatus() == hostlink.Connected })
}

// Certificates are renewed without anyone's doing, and the host stays.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	s.authority.HostLife = 6 * time.Second
	identity := s.mustJoin(t, "node1")
	first := identity.Certificate()
	h := connectBy(t, hostlink.Servers{URLs: []string{s.url}, Identity: identity}, "node1")
	eventually(t, "the certificate to be renewed, twice", func() bool {
		return identity.Certificate().NotAfter.Sub(first.NotAfter) > 6*time.Second
	})
	eventually(t, "the host to be connected past the end of the first", func() bool {
		return time.Now().After(first.NotAfter) && h.currentStatus() == hostlink.Connected && s.host(t, "node1").GetConnected()
	})
	h.report(&serverpb.ReportRequest{})
}

// Servers of one fleet need its key; whoever lacks it is told, and changes
// nothing.
func TestFleetKeyOfAnother(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, "")
	key := filepath.Join(t.TempDir(), "fleet.key")
	a := serveTLS(t, Options{EtcdEndpoints: []string{e.address}, FleetKey: key})
	missing := filepath.Join(t.TempDir(), "fleet.key")
	_, err := New(Options{EtcdEndpoints: []string{e.address}, FleetKey: missing})
	if err == nil || !strings.Contains(err.Error(), "copy that file from another server") {
		t.Errorf("without the key: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it made a key of its own")
	}
	if err := trust.NewFleetKey().Write(missing); err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{EtcdEndpoints: []string{e.address}, FleetKey: missing})
	if err == nil || !strings.Contains(err.Error(), "sealed with another key") {
		t.Errorf("with another key: %v", err)
	}
	b := serveTLS(t, Options{EtcdEndpoints: []string{e.address}, FleetKey: key})
	identity, err := b.join(t, a.joinToken(t, ""), "node1", filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatalf("join by one server with another's token: %v", err)
	}
	connectBy(t, hostlink.Servers{URLs: []string{a.url}, Identity: identity}, "node1")
}

// What a member of etcd, or whoever reads its backups, can see gives no access.
func TestStoreHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, Options{})
	join := parsed(t, s.joinToken(t, ""))
	personal := parsed(t, must[serverpb.CreateTokenResponse](t)(s.admin().CreateToken(t.Context(), connect.NewRequest(&serverpb.CreateTokenRequest{Name: "x", Role: "admin"}))).GetToken())
	for _, kv := range s.everything(t) {
		for _, secret := range []string{join.Secret, personal.Secret, "PRIVATE KEY"} {
			if strings.Contains(string(kv.Value), secret) {
				t.Errorf("%s shows a secret: %s", kv.Key, kv.Value)
			}
		}
	}
}
