package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/trust"
)

const (
	// defaultServer is where a management server listens unless told otherwise.
	defaultServer = "http://127.0.0.1:7070"

	defaultDataDir = "/var/lib/gnomon"
	serverSocket   = "server.sock" // in the data directory
	unixScheme     = hostlink.UnixScheme
)

// localServer is the address of this machine's server: its Unix socket where
// that is served and open to this user, which tells who calls.
func localServer() string {
	path := filepath.Join(defaultDataDir, serverSocket)
	c, err := net.Dial("unix", path) //nolint:noctx // a local socket answers at once or not at all
	if err != nil {
		return defaultServer
	}
	c.Close()
	return unixScheme + path
}

// checkServer tells what is wrong with a server's address.
func checkServer(address string) error {
	if path, ok := strings.CutPrefix(address, unixScheme); ok && filepath.IsAbs(path) {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("--server %q: want an address like %s, https://mgmt:7070 or unix:///run/server.sock", address, defaultServer)
	}
	return nil
}

// tokenFileEnv names a file that holds a token.
const tokenFileEnv = "GNOMON_TOKEN_FILE"

// reach returns a client of the management server at an address, as the person
// who logged in there, or the person or program whose token is at hand, and the base of the server's URLs.
func reach(address string) (client *http.Client, base string, err error) {
	if err := checkServer(address); err != nil {
		return nil, "", err
	}
	if strings.HasPrefix(address, unixScheme) {
		return hostlink.NewHTTPClient(nil), hostlink.BaseURL(address), nil
	}
	if os.Getenv(tokenFileEnv) == "" {
		l, err := loginFor(address)
		if err != nil {
			return nil, "", err
		}
		if l != nil {
			client := l.client()
			client.Transport = &withLogin{RoundTripper: client.Transport, l: l}
			return client, address, nil
		}
	}
	token, err := personalToken()
	if err != nil {
		return nil, "", err
	}
	if token == nil || strings.HasPrefix(address, "http://") && !loopback(address) {
		return hostlink.NewHTTPClient(nil), address, nil // a token is not sent in the clear
	}
	var how *tls.Config
	if strings.HasPrefix(address, "https://") {
		how = trust.PinnedTLS(token.Fleet, nil, nil)
	}
	client = hostlink.NewHTTPClient(how)
	client.Transport = withToken{client.Transport, *token}
	return client, address, nil
}

// unreached says what to do where err is that nobody answers at a server's
// address, or somebody whom nothing vouches for.
func unreached(address string, err error) error {
	var dial *net.OpError
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		err = fmt.Errorf("trust the server at %s: %w: a login or a token says which fleet it has to be of: \"gnomon login\", or %s", address, unknown.Err, tokenFileEnv)
	case !errors.As(err, &dial) || dial.Op != "dial":
		return err
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("reach the server at %s: %w: run as root", address, dial.Err)
	default:
		err = fmt.Errorf("reach the server at %s: %w: start it with \"gnomon up\" or \"gnomon server\", or name its address with --server", address, dial.Err)
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

func loopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// withToken adds a token to requests.
type withToken struct {
	http.RoundTripper
	token trust.Token
}

// RoundTrip implements http.RoundTripper.
func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.token.Text())
	return t.RoundTripper.RoundTrip(r)
}

// personalToken reads the token of whoever uses the program: from the file that
// GNOMON_TOKEN_FILE names, else from gnomon/token in the user's configuration.
// It is nil where there is none.
func personalToken() (*trust.Token, error) {
	path, named := os.Getenv(tokenFileEnv), true
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, nil
		}
		path, named = filepath.Join(dir, "gnomon", "token"), false
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, usagef("%s: %w", tokenFileEnv, err)
	}
	defer f.Close()
	t, err := trust.ReadToken(f, trust.AccessKind)
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return &t, nil
}

// unixClient returns a client of what listens on a Unix socket.
func unixClient(path string, explain func(error) error) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, explain(err)
			}
			return conn, nil
		},
	}}
}
