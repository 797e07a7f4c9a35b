package hostlink

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"time"
)

// dialTimeout is how long a server may take to accept a connection: one that is
// cut off never does.
const dialTimeout = 3 * time.Second

// UnixScheme begins the address of a server's Unix socket.
const UnixScheme = "unix://"

// dial connects to an address, or to the Unix socket whose path a host name
// holds in hexadecimal.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if name, ok := strings.CutSuffix(address, unixSuffix+":80"); ok {
		if path, err := hex.DecodeString(name); err == nil {
			return d.DialContext(ctx, "unix", string(path))
		}
	}
	return d.DialContext(ctx, network, address)
}

const unixSuffix = ".unix.invalid"

// BaseURL returns what a client of NewHTTPClient reaches a server by: its
// address, or a URL that stands for the Unix socket it names.
func BaseURL(address string) string {
	if path, ok := strings.CutPrefix(address, UnixScheme); ok {
		return "http://" + hex.EncodeToString([]byte(path)) + unixSuffix
	}
	return address
}

// NewHTTPClient returns a client for a server's API: HTTP/2, with TLS where the
// address says so, that notices within seconds when the other side is gone. How
// may be nil, for the system's authorities and no certificate.
func NewHTTPClient(how *tls.Config) *http.Client {
	var p http.Protocols
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dial,
		TLSClientConfig:     how,
		TLSHandshakeTimeout: dialTimeout,
		Protocols:           &p,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 3 * time.Second, PingTimeout: 3 * time.Second},
	}}
}
