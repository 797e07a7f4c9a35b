package trust

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// FleetKey seals the authority's own key where it is stored. Every server of a
// fleet has the same one, in a file.
type FleetKey [32]byte

// NewFleetKey returns a random key.
func NewFleetKey() (k FleetKey) {
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// ReadFleetKey reads a key's file, which nobody but its owner may read. The
// error is fs.ErrNotExist where there is none.
func ReadFleetKey(path string) (k FleetKey, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return k, fmt.Errorf("read the fleet's key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return k, fmt.Errorf("the fleet's key %s is open to others (mode %04o): chmod 600 it", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return k, fmt.Errorf("read the fleet's key: %w", err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(k) {
		return k, fmt.Errorf("the fleet's key %s is damaged: want %d hexadecimal digits; copy it from another server, or from a backup", path, 2*len(k))
	}
	return FleetKey(b), nil
}

// Write writes the key to a file that must not exist.
func (k FleetKey) Write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the fleet's key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the fleet's key: %w", err)
	}
	_, err = fmt.Fprintln(f, hex.EncodeToString(k[:]))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("write the fleet's key: %w", err)
	}
	return nil
}

// sealed is how an authority is stored: the certificate in the open, the key
// encrypted by AES-256-GCM and bound to the certificate.
type sealed struct {
	Certificate []byte `json:"certificate"` // DER
	Nonce       []byte `json:"nonce"`
	Key         []byte `json:"key"` // sealed PKCS #8
}

func (k FleetKey) cipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Seal returns the authority in a form to store.
func (a *Authority) Seal(k FleetKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("seal the fleet's authority: %w", err)
	}
	aead, err := k.cipher()
	if err != nil {
		return nil, fmt.Errorf("seal the fleet's authority: %w", err)
	}
	s := sealed{Certificate: a.Certificate.Raw, Nonce: make([]byte, aead.NonceSize())}
	_, _ = rand.Read(s.Nonce) // never fails
	s.Key = aead.Seal(nil, s.Nonce, der, s.Certificate)
	return json.Marshal(s)
}

// ErrOtherKey is returned for an authority that another key sealed.
var ErrOtherKey = errors.New("the fleet's authority was sealed with another key")

// Open returns the authority that Seal stored.
func Open(stored []byte, k FleetKey) (*Authority, error) {
	var s sealed
	if err := json.Unmarshal(stored, &s); err != nil {
		return nil, fmt.Errorf("read the fleet's authority: %w", err)
	}
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read the fleet's authority: %w", err)
	}
	aead, err := k.cipher()
	if err != nil {
		return nil, err
	}
	if len(s.Nonce) != aead.NonceSize() {
		return nil, errors.New("read the fleet's authority: damaged")
	}
	der, err := aead.Open(nil, s.Nonce, s.Key, s.Certificate)
	if err != nil {
		return nil, ErrOtherKey
	}
	key, err := parseKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the fleet's authority: %w", err)
	}
	return &Authority{cert, key, HostLife}, nil
}
