package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrOtherFleet is returned for a server whose authority is another.
var ErrOtherFleet = errors.New("the server is of another fleet")

// PinnedTLS returns how a client of a fleet known by its fingerprint reaches
// the fleet's servers, at whatever name: the server has to show a certificate
// of an authority with that fingerprint. Own returns the client's certificate;
// nil for none. Now is the clock; nil for the system's.
func PinnedTLS(fleet string, own func() (*tls.Certificate, error), now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		Time:       now,
		// The chain is verified below, from the authority that is pinned.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verify(s.PeerCertificates, fleet, now())
		},
	}
	if own != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	return c
}

// verify checks a server's chain, which ends in its authority.
func verify(chain []*x509.Certificate, fleet string, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	authority := chain[len(chain)-1]
	if got := Fingerprint(authority); got != fleet {
		return fmt.Errorf("%w: its authority is %s…, want %s…", ErrOtherFleet, got[:12], fleet[:min(12, len(fleet))])
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: ServerName, CurrentTime: now})
	return clockHint(err, now)
}

// clockHint tells what is mostly wrong where a certificate is out of its time.
func clockHint(err error, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: see that the clocks of both sides are right; here it is %s", err, now.UTC().Format(time.RFC3339))
	}
	return err
}

// ServerTLS returns how a server of the fleet listens: with a certificate that
// is replaced in time, and taking clients' of the fleet alone. Names are as in
// SignServer.
func (a *Authority) ServerTLS(names []string) *tls.Config {
	s := &serverCertificate{authority: a, names: names}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.current(time.Now()) },
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      a.Pool(),
		NextProtos:     []string{"h2", "http/1.1"},
	}
}

// serverCertificate is signed anew when two thirds of its life are over. Its
// key is in no file.
type serverCertificate struct {
	authority *Authority
	names     []string

	mu   sync.Mutex
	last *tls.Certificate
}

func (s *serverCertificate) current(now time.Time) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && now.Before(s.last.Leaf.NotAfter.Add(-ServerLife/3)) {
		return s.last, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := s.authority.SignServer(s.names, &key.PublicKey, now)
	if err != nil {
		return nil, err
	}
	s.last = &tls.Certificate{Certificate: [][]byte{leaf.Raw, s.authority.Certificate.Raw}, PrivateKey: key, Leaf: leaf}
	return s.last, nil
}
