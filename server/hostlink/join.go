package hostlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// Join has a host taken into the fleet of a token, by the first of the servers
// that answers, and keeps the identity it gets in the file. Repeating it is
// safe, and with a host that has joined already makes its certificate anew.
func Join(ctx context.Context, servers []string, token trust.Token, host, path string) (*trust.Identity, error) {
	identity, err := trust.MakeIdentity(path)
	if err != nil {
		return nil, err
	}
	request, err := identity.Request()
	if err != nil {
		return nil, fmt.Errorf("sign a certificate request: %w", err)
	}
	client := NewHTTPClient(trust.PinnedTLS(token.Fleet, nil, nil))
	defer client.CloseIdleConnections()
	var failures []error
	for _, url := range servers {
		ctx, cancel := context.WithTimeout(ctx, joinTimeout)
		r, err := serverpbconnect.NewJoinServiceClient(client, url).
			Join(ctx, connect.NewRequest(&serverpb.JoinRequest{Token: token.Text(), Host: host, Request: request}))
		cancel()
		if err == nil {
			if err := identity.Joined(servers, r.Msg.GetCertificate(), r.Msg.GetAuthority()); err != nil {
				return nil, fmt.Errorf("join by %s: %w", url, err)
			}
			return identity, nil
		}
		failures = append(failures, fmt.Errorf("join by %s: %w", url, explain(err)))
		if connect.CodeOf(err) != connect.CodeUnavailable {
			break // it answered
		}
	}
	return nil, errors.Join(failures...)
}

// explain adds what to do to failures that a server could not explain.
func explain(err error) error {
	switch {
	case errors.Is(err, trust.ErrOtherFleet):
		return fmt.Errorf("%w: the token is for another, or somebody is in between", err)
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		return fmt.Errorf("%w: the server is older than this program, and hosts cannot join it", err)
	}
	return err
}

const (
	renewPause = 10 * time.Minute // between attempts to renew
	renewSoon  = time.Second      // the shortest of pauses
)

// keepCertificate renews the host's certificate in time, until ctx ends.
func (l *Link) keepCertificate(ctx context.Context) {
	identity := l.o.Servers.Identity
	for {
		wait := max(time.Until(identity.RenewAt()), renewSoon)
		if time.Now().After(identity.RenewAt()) {
			if err := l.renew(ctx); err != nil {
				// Far ahead of its end: there is time to try again.
				wait = min(renewPause, max(time.Until(identity.Certificate().NotAfter)/4, renewSoon))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// renew gets a later certificate and connects anew with it.
func (l *Link) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	identity := l.o.Servers.Identity
	request, err := identity.Request()
	if err != nil {
		return err
	}
	client, url := l.current()
	r, err := serverpbconnect.NewJoinServiceClient(client, url).Renew(ctx, connect.NewRequest(&serverpb.RenewRequest{Request: request}))
	if err != nil {
		return fmt.Errorf("renew this host's certificate: %w", err)
	}
	if err := identity.Renewed(r.Msg.GetCertificate()); err != nil {
		return err
	}
	l.reconnect()
	return nil
}

// reconnect gives up the connections that were made with what the host showed
// before.
func (l *Link) reconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.client
	l.client = NewHTTPClient(l.o.Servers.TLS())
	if l.redo != nil {
		l.redo()
	}
	before.CloseIdleConnections()
}

// reload reads the identity again: where servers do not take it any more, the
// host may have joined anew meanwhile.
func (l *Link) reload() {
	if i := l.o.Servers.Identity; i != nil && i.Reload() {
		l.reconnect()
	}
}
