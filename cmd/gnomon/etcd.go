package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/gnomon-vm/gnomon/server"
	"github.com/spf13/pflag"
)

// etcdFlags say how to reach an existing etcd cluster.
type etcdFlags struct {
	endpoints    []string
	caCert       string
	cert         string
	key          string
	username     string
	passwordFile string
}

func (f *etcdFlags) add(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.endpoints, "etcd-endpoints", nil, "an existing etcd cluster instead of the embedded one")
	fl.StringVar(&f.caCert, "etcd-cacert", "", "file of the CA certificates that etcd's are signed by (default: the system's)")
	fl.StringVar(&f.cert, "etcd-cert", "", "file of the certificate to show to etcd, read anew for each connection")
	fl.StringVar(&f.key, "etcd-key", "", "file of the key of --etcd-cert")
	fl.StringVar(&f.username, "etcd-username", "", "etcd user")
	fl.StringVar(&f.passwordFile, "etcd-password-file", "", "file of the etcd user's password")
}

// check tells what is wrong with the flags by themselves.
func (f *etcdFlags) check() error {
	if len(f.endpoints) == 0 {
		for flag, value := range map[string]string{
			"etcd-cacert": f.caCert, "etcd-cert": f.cert, "etcd-key": f.key,
			"etcd-username": f.username, "etcd-password-file": f.passwordFile,
		} {
			if value != "" {
				return usagef("--%s is for an existing cluster: name its addresses with --etcd-endpoints", flag)
			}
		}
		return nil
	}
	switch {
	case f.cert != "" && f.key == "":
		return usagef("--etcd-cert needs --etcd-key, the file of its key")
	case f.key != "" && f.cert == "":
		return usagef("--etcd-key needs --etcd-cert, the file of its certificate")
	case f.username != "" && f.passwordFile == "":
		return usagef("--etcd-username needs --etcd-password-file, a file that holds the password alone")
	case f.passwordFile != "" && f.username == "":
		return usagef("--etcd-password-file needs --etcd-username")
	}
	secure := 0
	for _, e := range f.endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usagef("--etcd-endpoints %q: want an address like https://etcd-1:2379", e)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure > 0 && secure < len(f.endpoints):
		return usagef("--etcd-endpoints: want all http:// or all https://")
	case secure == 0 && (f.caCert != "" || f.cert != ""):
		return usagef("--etcd-cacert and --etcd-cert are for TLS: give --etcd-endpoints as https://, not http://")
	}
	return nil
}

// apply checks the flags, reads the files and sets what they say. The password
// is in no message.
func (f *etcdFlags) apply(o *server.Options, log *slog.Logger) error {
	if err := f.check(); err != nil {
		return err
	}
	o.EtcdEndpoints, o.EtcdUsername = f.endpoints, f.username
	var err error
	if f.username != "" {
		if o.EtcdPassword, err = readPassword(f.passwordFile, log); err != nil {
			return err
		}
	}
	if len(f.endpoints) == 0 {
		return nil
	}
	if strings.HasPrefix(f.endpoints[0], "https://") {
		o.EtcdTLS, err = f.tls()
		return err
	}
	if f.username != "" {
		log.Warn("the etcd password goes over the network in the clear: use https:// for --etcd-endpoints")
	}
	return nil
}

func (f *etcdFlags) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caCert != "" {
		pem, err := os.ReadFile(f.caCert)
		if err != nil {
			return nil, usagef("--etcd-cacert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--etcd-cacert %s: want certificates in PEM, found none", f.caCert)
		}
	}
	if f.cert != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.cert, f.key)
			if err != nil {
				return nil, fmt.Errorf("--etcd-cert %s, --etcd-key %s: %w", f.cert, f.key, err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, usageError{err}
		}
		// Certificates are replaced before they expire: no restart for that.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}

// readPassword reads the one line of a file.
func readPassword(path string, log *slog.Logger) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", usagef("--etcd-password-file: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	switch {
	case len(b) == 0:
		return "", usagef("--etcd-password-file %s is empty", path)
	case bytes.ContainsAny(b, "\r\n"):
		return "", usagef("--etcd-password-file %s: want the password alone, on one line", path)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		log.Warn("everyone on this machine can read the etcd password", "file", path, "mode", info.Mode().Perm())
	}
	return string(b), nil
}
