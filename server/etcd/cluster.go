package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// dialTimeout is for how long a cluster may keep silent at the start.
const dialTimeout = 5 * time.Second

// reconnect is how soon a cluster that was down is tried again.
var reconnect = backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}

func openCluster(ctx context.Context, o Options) (*Store, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.Username, Password: o.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: zapLogger(o.Logger, nil),
		// By itself gRPC may wait minutes before it tries again.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: dialTimeout})},
	})
	if err != nil {
		return nil, unreachable(ctx, o, err)
	}
	get, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := c.Get(get, root, clientv3.WithCountOnly(), clientv3.WithPrefix()); err != nil {
		c.Close()
		return nil, unreachable(ctx, o, err)
	}
	return &Store{Client: c, Failed: make(chan error), close: c.Close}, nil
}

// root begins every key that is used.
const root = "/gnomon/"

// unreachable tells what to do about a cluster that does not serve.
func unreachable(ctx context.Context, o Options, err error) error {
	hint := "check that it runs and that the addresses are right"
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		hint = "check the user's name and password"
	case errors.Is(err, rpctypes.ErrUserEmpty):
		hint = "it wants a user's name and password"
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		hint = "its user needs permission to read and write all keys from " + root
	case o.TLS != nil:
		// The client does not tell why a handshake failed.
		for _, endpoint := range o.Endpoints {
			if cause := handshake(ctx, endpoint, o.TLS); cause != nil {
				err, hint = cause, "check that it runs, and the certificates of both sides"
				break
			}
		}
	}
	return fmt.Errorf("reach etcd at %v: %w; %s", o.Endpoints, err, hint)
}

// handshake returns what goes wrong when an endpoint is dialled with TLS.
func handshake(ctx context.Context, endpoint string, c *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: handshakeTimeout}, Config: c}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	// In TLS 1.3 the other side refuses a certificate after the handshake.
	_ = conn.SetReadDeadline(time.Now().Add(handshakeTimeout))
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

const handshakeTimeout = time.Second
