// Package hostlink is the host daemon's end of its link to the central
// management servers: it keeps the stream of desired states open to one of them
// and reports what the host runs. When that server is gone it goes to the next;
// without any the host goes on with what it knows.
package hostlink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// Servers say how to reach the management servers of a fleet.
type Servers struct {
	// URLs are theirs, such as "https://10.0.0.1:7070" or, on the same machine,
	// "unix:///run/server.sock"; any is as good as another. None is no link.
	URLs []string

	// Identity is the host's in its fleet; nil for servers that know it by the
	// machine they share.
	Identity *trust.Identity
}

// TLS is how the host shows who it is; nil without an identity.
func (s Servers) TLS() *tls.Config {
	if s.Identity == nil {
		return nil
	}
	return s.Identity.TLS(nil)
}

// Options configure a link.
type Options struct {
	Servers Servers

	// OnState is called with every state that is newer than the one before,
	// OnStatus with "connected" before the first of them, and with why not
	// whenever that changes. Both are called by Run, one at a time.
	OnState  func(*serverpb.DesiredState)
	OnStatus func(string)
}

// Connected is the status of a link that is well.
const Connected = "connected"

// The pauses between attempts to connect: short enough that a server that
// comes back has all its hosts within seconds.
const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 3 * time.Second

	// settled is how long a stream must live for the next pause to be short.
	settled = 10 * time.Second
)

// Link is a host's link to its servers.
type Link struct {
	o    Options
	urls []string

	mu     sync.Mutex
	client *http.Client
	url    string             // of the server in use
	redo   context.CancelFunc // ends the stream that is open, nil without one
}

// New prepares a link.
func New(o Options) *Link {
	l := &Link{o: o}
	for _, address := range o.Servers.URLs {
		l.urls = append(l.urls, BaseURL(address))
	}
	if n := len(l.urls); n > 0 {
		l.url = l.urls[rand.N(n)] // so that hosts spread
	}
	l.client = NewHTTPClient(o.Servers.TLS())
	return l
}

// current returns what to call now.
func (l *Link) current() (*http.Client, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client, l.url
}

// next goes on to another server.
func (l *Link) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, u := range l.urls {
		if u == l.url {
			l.url = l.urls[(i+1)%len(l.urls)]
			return
		}
	}
}

// Run keeps the link until ctx ends. Host is how the host introduces itself.
func (l *Link) Run(ctx context.Context, host *serverpb.WatchRequest) {
	var parts sync.WaitGroup
	defer parts.Wait()
	if l.o.Servers.Identity != nil {
		parts.Go(func() { l.keepCertificate(ctx) })
	}
	status := ""
	report := func(s string) {
		if s != status && l.o.OnStatus != nil {
			l.o.OnStatus(s)
		}
		status = s
	}
	var last *serverpb.DesiredState
	backoff, failed := minBackoff, 0
	for ctx.Err() == nil {
		began := time.Now()
		renewed, err := l.watch(ctx, host, func(d *serverpb.DesiredState) {
			report(Connected)
			if last != nil && d.GetEpoch() == last.GetEpoch() && d.GetRevision() < last.GetRevision() {
				return // from a server that lags behind the one before
			}
			last = d
			l.o.OnState(d)
		})
		if ctx.Err() != nil {
			return
		}
		if renewed {
			continue
		}
		report(reason(err))
		l.reload()
		l.next()
		if time.Since(began) >= settled {
			backoff, failed = minBackoff, 0
		}
		wait := backoff/2 + rand.N(backoff/2)
		if failed++; failed%len(l.urls) == 0 { // all had their turn
			backoff = min(2*backoff, maxBackoff)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// watch holds one stream open. It tells whether the stream ended only to begin
// anew with a later certificate.
func (l *Link) watch(ctx context.Context, host *serverpb.WatchRequest, onState func(*serverpb.DesiredState)) (renewed bool, err error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.redo = cancel
	l.mu.Unlock()
	client, url := l.current()
	stream, err := serverpbconnect.NewHostLinkServiceClient(client, url).Watch(watching, connect.NewRequest(host))
	if err == nil {
		for stream.Receive() {
			onState(stream.Msg())
		}
		err = stream.Err()
		_ = stream.Close()
	}
	return watching.Err() != nil && ctx.Err() == nil, err
}

func reason(err error) string {
	var rpc *connect.Error
	switch {
	case err == nil:
		return "the server ended the stream"
	case errors.As(err, &rpc):
		return rpc.Message()
	}
	return err.Error()
}

// Settle tells the server in use what became of an order.
func (l *Link) Settle(ctx context.Context, r *serverpb.SettleRequest) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	client, url := l.current()
	if _, err := serverpbconnect.NewHostLinkServiceClient(client, url).Settle(ctx, connect.NewRequest(r)); err != nil {
		return fmt.Errorf("settle order: %w", err)
	}
	return nil
}

const (
	// reportTimeout is long: a server that a whole fleet comes back to hears one
	// after the other, and who gives up has to come again. One that is gone is
	// noticed by its connection.
	reportTimeout = 30 * time.Second

	// joinTimeout is how long one server may take to let a host join.
	joinTimeout = 10 * time.Second
)

// ErrResend is returned when the server does not know what a report left out.
var ErrResend = errors.New("the server wants the whole report")

// Report tells the server in use what the host runs. Telling the same again is
// cheap, and cheaper still where it is left out as unchanged.
func (l *Link) Report(ctx context.Context, r *serverpb.ReportRequest) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	client, url := l.current()
	res, err := serverpbconnect.NewHostLinkServiceClient(client, url).Report(ctx, connect.NewRequest(r))
	if err != nil {
		return fmt.Errorf("report to server: %w", err)
	}
	if res.Msg.GetResend() {
		return ErrResend
	}
	return nil
}
