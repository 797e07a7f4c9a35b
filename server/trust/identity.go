package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// Identity is a host's: its key, its certificate and its fleet, in a file that
// only its owner may read.
type Identity struct {
	path string

	mu   sync.Mutex
	key  *ecdsa.PrivateKey
	data identityData
	cert *x509.Certificate // nil before the host has joined
}

type identityData struct {
	Servers     []string `json:"servers,omitempty"` // addresses, as joined
	Fleet       string   `json:"fleet,omitempty"`   // fingerprint of the authority
	Key         []byte   `json:"key"`               // PKCS #8
	Certificate []byte   `json:"certificate,omitempty"`
	Authority   []byte   `json:"authority,omitempty"`
}

// OpenIdentity reads an identity's file. Where there is none it returns
// fs.ErrNotExist.
func OpenIdentity(path string) (*Identity, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read this host's identity: %w", err)
	}
	i := &Identity{path: path}
	if err := json.Unmarshal(b, &i.data); err == nil {
		i.key, err = parseKey(i.data.Key)
		if err == nil && len(i.data.Certificate) > 0 {
			i.cert, err = x509.ParseCertificate(i.data.Certificate)
		}
		if err == nil {
			return i, nil
		}
	}
	return nil, fmt.Errorf("this host's identity %s is damaged: remove it, revoke the host, and join again", path)
}

// MakeIdentity returns the identity in the file, or one with a new key, which
// is on disk before anyone signs it: a join that is repeated is then the same.
func MakeIdentity(path string) (*Identity, error) {
	i, err := OpenIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return i, err
	}
	i = &Identity{path: path}
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if i.data.Key, err = x509.MarshalPKCS8PrivateKey(i.key); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("write this host's identity: %w", err)
	}
	return i, i.save(i.data)
}

// save writes the file whole, or not at all.
func (i *Identity) save(d identityData) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(i.path, b, 0o600, renameio.WithTempDir(filepath.Dir(i.path))); err != nil {
		return fmt.Errorf("write this host's identity: %w", err)
	}
	return nil
}

// Request returns a certificate request signed by the identity's key.
func (i *Identity) Request() ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, i.key)
}

// Joined keeps what a host got when it joined.
func (i *Identity) Joined(servers []string, certificate, authority []byte) error {
	a, err := x509.ParseCertificate(authority)
	if err != nil {
		return fmt.Errorf("the authority's certificate: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	d := i.data
	d.Servers, d.Fleet, d.Authority = servers, Fingerprint(a), authority
	return i.replace(d, certificate)
}

// Renewed keeps a later certificate.
func (i *Identity) Renewed(certificate []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.replace(i.data, certificate)
}

// replace checks the certificate, has all on disk, and then uses it.
func (i *Identity) replace(d identityData, certificate []byte) error {
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("this host's certificate: %w", err)
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !key.Equal(&i.key.PublicKey) {
		return errors.New("this host's certificate is for another key")
	}
	a, err := x509.ParseCertificate(d.Authority)
	if err != nil {
		return fmt.Errorf("the authority's certificate: %w", err)
	}
	if err := c.CheckSignatureFrom(a); err != nil {
		return fmt.Errorf("this host's certificate: %w", err)
	}
	d.Certificate = certificate
	if err := i.save(d); err != nil {
		return err
	}
	i.data, i.cert = d, c
	return nil
}

// Certificate returns the host's, nil before it has joined.
func (i *Identity) Certificate() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert
}

// Host is the name the host joined by; "" before it has.
func (i *Identity) Host() string {
	if c := i.Certificate(); c != nil {
		name, _ := HostOf(c)
		return name
	}
	return ""
}

// Servers are the addresses that were given when the host joined.
func (i *Identity) Servers() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.data.Servers
}

// RenewAt is when the certificate is to be renewed: when two thirds of its
// life are over, so that a month's outage costs nothing.
func (i *Identity) RenewAt() time.Time {
	c := i.Certificate()
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore.Add(Skew)) / 3)
}

// Reload reads the file again and tells whether the certificate is another. A
// file that is of no use leaves the identity as it was.
func (i *Identity) Reload() (changed bool) {
	now, err := OpenIdentity(i.path)
	if err != nil || now.cert == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	changed = i.cert == nil || !now.cert.Equal(i.cert)
	i.key, i.data, i.cert = now.key, now.data, now.cert
	return changed
}

// TLS returns how the host reaches the servers of its fleet. Now is the clock;
// nil for the system's.
func (i *Identity) TLS(now func() time.Time) *tls.Config {
	i.mu.Lock()
	fleet := i.data.Fleet
	i.mu.Unlock()
	return PinnedTLS(fleet, func() (*tls.Certificate, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		return &tls.Certificate{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key, Leaf: i.cert}, nil
	}, now)
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	return k, nil
}
