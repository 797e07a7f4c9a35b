// Package trust is how the parts of a fleet know each other: a certificate
// authority of the fleet's own, tokens that name it, and TLS by both.
//
// A fleet has one authority. Its certificate's fingerprint is the fleet's name:
// every token carries it, so that whoever holds a token knows its servers at
// the first contact. Servers' certificates are for one name, ServerName, at
// whatever address they are reached; hosts' carry the host's name.
package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// ServerName is the name in the certificate of every server of a fleet.
const ServerName = "server.gnomon"

// For how long certificates are good, those of hosts unless told otherwise.
// Clocks may be apart by up to Skew.
const (
	AuthorityLife = 20 * 365 * 24 * time.Hour
	HostLife      = 90 * 24 * time.Hour
	ServerLife    = 30 * 24 * time.Hour
	Skew          = time.Hour
)

// Authority signs a fleet's certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey

	// HostLife is for how long the certificates of hosts are good.
	HostLife time.Duration
}

// NewAuthority makes a fleet's authority.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "gnomon fleet"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	cert, err := sign(template, now, AuthorityLife, nil, key, &key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	return &Authority{cert, key, HostLife}, nil
}

// sign fills in what all certificates have; without a parent it is its own.
func sign(template *x509.Certificate, now time.Time, life time.Duration, parent *x509.Certificate, key crypto.Signer, public crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-Skew), now.Add(life)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Fingerprint names the fleet: the hash of the authority's public key.
func (a *Authority) Fingerprint() string { return Fingerprint(a.Certificate) }

// Fingerprint is the SHA-256 of the certificate's public key, in hexadecimal.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// hostScheme begins the URI that names a host in its certificate.
const hostScheme = "gnomon"

// SignHost gives a host of that name a certificate for a key.
func (a *Authority) SignHost(name string, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	c, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		URIs:        []*url.URL{{Scheme: hostScheme, Host: "host", Path: "/" + name}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now, a.HostLife, a.Certificate, a.key, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of host %q: %w", name, err)
	}
	return c, nil
}

// HostOf returns the name of the host that a certificate is for.
func HostOf(c *x509.Certificate) (name string, ok bool) {
	for _, u := range c.URIs {
		if u.Scheme == hostScheme && u.Host == "host" && len(u.Path) > 1 {
			return u.Path[1:], true
		}
	}
	return "", false
}

// SignServer gives a server a certificate for a key. Names are further names
// and addresses that others than gnomon's own programs reach it by.
func (a *Authority) SignServer(names []string, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: ServerName},
		DNSNames:    []string{ServerName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	c, err := sign(template, now, ServerLife, a.Certificate, a.key, key)
	if err != nil {
		return nil, fmt.Errorf("sign the server's certificate: %w", err)
	}
	return c, nil
}

// ParseRequest reads a certificate request and checks that its sender holds
// the key.
func ParseRequest(der []byte) (key crypto.PublicKey, fingerprint string, err error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, "", errors.New("certificate request: want a key on the curve P-256")
	}
	sum := sha256.Sum256(r.RawSubjectPublicKeyInfo)
	return r.PublicKey, hex.EncodeToString(sum[:]), nil
}
