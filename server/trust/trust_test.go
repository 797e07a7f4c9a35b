package trust

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSealedAuthority(t *testing.T) {
	a := must[*Authority](t)(NewAuthority(time.Now()))
	key := NewFleetKey()
	stored := must[[]byte](t)(a.Seal(key))
	b := must[*Authority](t)(Open(stored, key))
	if !b.key.Equal(a.key) || b.Fingerprint() != a.Fingerprint() {
		t.Error("another authority came back")
	}
	if _, err := Open(stored, NewFleetKey()); !errors.Is(err, ErrOtherKey) {
		t.Errorf("with another key: %v", err)
	}
	if _, err := Open([]byte("{"), key); err == nil {
		t.Error("what is damaged was opened")
	}
}

func TestFleetKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "fleet.key")
	if _, err := ReadFleetKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	key := NewFleetKey()
	if err := key.Write(path); err != nil {
		t.Fatal(err)
	}
	if got := must[FleetKey](t)(ReadFleetKey(path)); got != key {
		t.Error("another key came back")
	}
	if err := NewFleetKey().Write(path); err == nil {
		t.Error("it was overwritten")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFleetKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open to all: %v", err)
	}
	damaged := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(damaged, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFleetKey(damaged); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
}

func TestTokens(t *testing.T) {
	a := must[*Authority](t)(NewAuthority(time.Now()))
	token := NewToken(JoinKind, a.Fingerprint())
	back := must[Token](t)(ReadToken(strings.NewReader(token.Text()+"\n"), JoinKind))
	if back != token || !back.Matches(token.Hash()) || back.Matches(NewToken(JoinKind, a.Fingerprint()).Hash()) {
		t.Errorf("%+v came back as %+v", token, back)
	}
	if shown := fmt.Sprintf("%v %s %+v", token, token, &token); strings.Contains(shown, token.Secret) {
		t.Errorf("the secret is shown: %s", shown)
	}
	if _, err := ReadToken(strings.NewReader(token.Text()), AccessKind); err == nil || strings.Contains(err.Error(), token.Secret) {
		t.Errorf("of another kind: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken(JoinKind, strings.Repeat("0f", 32)).Text())
	f.Add("gnj1---")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err == nil && token.Text() != s {
			t.Errorf("%q is read as %q", s, token.Text())
		}
		if err != nil && len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats %q", s)
		}
	})
}

// joined returns an identity that an authority has signed.
func joined(t *testing.T, a *Authority, host string, now time.Time) *Identity {
	t.Helper()
	i := must[*Identity](t)(MakeIdentity(filepath.Join(t.TempDir(), "identity.json")))
	key, _, err := ParseRequest(must[[]byte](t)(i.Request()))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.SignHost(host, key, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Joined([]string{"https://a:1"}, cert.Raw, a.Certificate.Raw); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestIdentityIsKept(t *testing.T) {
	a := must[*Authority](t)(NewAuthority(time.Now()))
	i := joined(t, a, "node-1.example", time.Now())
	info, err := os.Stat(i.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	back := must[*Identity](t)(OpenIdentity(i.path))
	if back.Host() != "node-1.example" || !back.key.Equal(i.key) || len(back.Servers()) != 1 {
		t.Errorf("%+v came back", back.data)
	}
	again := must[*Identity](t)(MakeIdentity(i.path))
	if !again.key.Equal(i.key) {
		t.Error("joining again made another key")
	}
	other := must[*Authority](t)(NewAuthority(time.Now()))
	foreign, err := other.SignHost("node-1.example", &i.key.PublicKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Renewed(foreign.Raw); err == nil {
		t.Error("a certificate of another authority was taken")
	}
	if err := os.WriteFile(i.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIdentity(i.path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	if i.Reload() || i.Host() == "" {
		t.Error("a damaged file took the identity away")
	}
}

// meet has a client and a server shake hands and returns what either says.
func meet(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1)) // a refused certificate shows here
	}
	return err, <-done
}

func TestWhoMayMeetWhom(t *testing.T) {
	now := time.Now()
	ours, theirs := must[*Authority](t)(NewAuthority(now)), must[*Authority](t)(NewAuthority(now))
	host := joined(t, ours, "node1", now)
	at := func(offset time.Duration) func() time.Time {
		return func() time.Time { return now.Add(offset) }
	}
	late := ours.ServerTLS(nil)
	late.Time = at(HostLife + Skew)
	for name, c := range map[string]struct {
		client, server *tls.Config
		want           string // in the client's error
	}{
		"the fleet's host":         {host.TLS(nil), ours.ServerTLS(nil), ""},
		"by the pin alone":         {PinnedTLS(ours.Fingerprint(), nil, nil), ours.ServerTLS([]string{"10.0.0.1", "mgmt"}), ""},
		"a clock 10 minutes late":  {host.TLS(at(-10 * time.Minute)), ours.ServerTLS(nil), ""},
		"a clock 10 minutes early": {host.TLS(at(10 * time.Minute)), ours.ServerTLS(nil), ""},
		"a clock a year early":     {host.TLS(at(365 * 24 * time.Hour)), ours.ServerTLS(nil), "see that the clocks of both sides are right"},
		"a server of others":       {host.TLS(nil), theirs.ServerTLS(nil), ErrOtherFleet.Error()},
		"a host of others":         {joined(t, theirs, "node1", now).with(ours).TLS(nil), ours.ServerTLS(nil), "unknown certificate authority"},
		"a host that expired":      {host.TLS(nil), late, "expired"},
		"a host as a server":       {host.TLS(nil), pretender(host, ours), ServerName},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := meet(t, c.client, c.server)
			if c.want == "" && (client != nil || server != nil) || c.want != "" && (client == nil || !strings.Contains(client.Error(), c.want)) {
				t.Errorf("client: %v; server: %v; want %q", client, server, c.want)
			}
		})
	}
}

// with returns an identity that takes the servers of another fleet for its own.
func (i *Identity) with(a *Authority) *Identity {
	i.data.Fleet = a.Fingerprint()
	return i
}

// pretender is a host that serves with its own certificate.
func pretender(i *Identity, a *Authority) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{
		{Certificate: [][]byte{i.cert.Raw, a.Certificate.Raw}, PrivateKey: i.key}}}
}

func TestServerCertificateIsReplacedInTime(t *testing.T) {
	now := time.Now()
	s := &serverCertificate{authority: must[*Authority](t)(NewAuthority(now))}
	first := must[*tls.Certificate](t)(s.current(now))
	if same := must[*tls.Certificate](t)(s.current(now.Add(ServerLife / 2))); same != first {
		t.Error("it was replaced too early")
	}
	if later := must[*tls.Certificate](t)(s.current(now.Add(ServerLife * 3 / 4))); !later.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("it was not replaced")
	}
}
