package server

import (
	"context"
	"crypto/rand"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	releaseTimeout = 2 * time.Second
	coalesce       = 20 * time.Millisecond // changes this close together are sent as one
)

// link is what this server remembers of a host between calls.
type link struct {
	seen    time.Time
	streams int // open

	free, predicted, capacity map[string]int64 // latest; nil before the first report

	needs []*serverpb.VMNeeds

	stored   *serverpb.ReportRequest // as this server last stored it,
	storedAt time.Time
	revision int64 // and the revision of that
}

// touch notes that the host was heard of. It returns a copy of what is known.
func (s *Server) touch(host string, change func(*link)) link {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[host]
	if l == nil {
		l = &link{}
		s.links[host] = l
	}
	l.seen = time.Now()
	if change != nil {
		change(l)
	}
	return *l
}

// Watch implements HostLinkService.
func (s *Server) Watch(ctx context.Context, req *connect.Request[serverpb.WatchRequest], stream *connect.ServerStream[serverpb.DesiredState]) error {
	if err := checkWatch(req.Msg); err != nil {
		return err
	}
	if err := speaksFor(ctx, req.Msg.GetHost()); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errStopping()
	}
	s.streams.Add(1)
	s.mu.Unlock()
	defer s.streams.Done()
	s.metrics.connected.Inc()
	defer s.metrics.connected.Dec()

	host := req.Msg.GetHost()
	s.touch(host, func(l *link) { l.streams++ })
	defer s.touch(host, func(l *link) { l.streams-- })
	news, unsubscribe := s.mirror.subscribe(host)
	defer unsubscribe()
	var last *serverpb.DesiredState
	for {
		p, err := s.present(ctx, req.Msg)
		if err != nil && last != nil && s.pause(ctx) {
			continue // the store will be back; the host has what it needs
		}
		if err != nil {
			return err
		}
		last, err = s.inform(ctx, p, news, stream, last)
		if err != nil {
			p.leave()
			s.log.Info("host disconnected", "host", host, "why", err)
			return err
		}
		// The lease was lost with the stream still open: be present again.
	}
}

// pause waits a little and reports whether the stream may go on.
func (s *Server) pause(ctx context.Context) bool {
	select {
	case <-time.After(reloadBackoff):
		return true
	case <-ctx.Done():
	case <-s.done:
	}
	return false
}

func errStopping() error {
	return refuse(connect.CodeUnavailable, "the server is stopping")
}

func checkWatch(m *serverpb.WatchRequest) error {
	if err := checkHostName(m.GetHost()); err != nil {
		return err
	}
	if err := checkText("version", m.GetVersion(), true); err != nil {
		return err
	}
	if err := checkText("accel", m.GetAccel(), true); err != nil {
		return err
	}
	if err := checkText("migration_uri", m.GetMigrationUri(), true); err != nil {
		return err
	}
	return checkAmounts("capacity", m.GetCapacity())
}

func checkAmounts(field string, m map[string]int64) error {
	for name, v := range m {
		if _, err := gnomon.ParseResource(name); err != nil {
			return refuseField(field, "%s: %w", field, err)
		}
		if v < 0 {
			return refuseField(field, "%s of %s: %d is negative", field, name, v)
		}
	}
	return nil
}

// presence is a host's being online through one stream of this server.
type presence struct {
	s        *Server
	host     string
	value    string // of the key
	session  *session
	revision int64 // at which it was written
	record   *serverpb.Host

	certified bool   // by a certificate that may be revoked
	key       string // of it, once seen
}

// revoked tells whether the host's certificate is no longer good.
func (p *presence) revoked(now identity) bool {
	if p.key == "" {
		p.key = now.Key
	}
	return p.certified && (now.Key == "" || now.Key != p.key)
}

// present registers the host and marks it as online.
func (s *Server) present(ctx context.Context, m *serverpb.WatchRequest) (*presence, error) {
	session, err := s.sessions.current(ctx)
	if err != nil {
		return nil, err
	}
	p := &presence{
		s: s, host: m.GetHost(), session: session,
		value: encodeJSON(online{Session: rand.Text(), Server: s.id}),
		record: &serverpb.Host{
			Name: m.GetHost(), Version: m.GetVersion(), Accel: m.GetAccel(), Capacity: m.GetCapacity(), TakesOrders: m.GetTakesOrders(), MigrationUri: m.GetMigrationUri(),
			LastSeenUnixNano: time.Now().UnixNano(),
		},
	}
	c, _ := access.From(ctx)
	p.certified = c.Host != ""
	put, err := putMessage(keyOf(hostPrefix, p.host), p.record)
	if err != nil {
		return nil, err
	}
	r, err := s.commitForHost(ctx, nil, put, clientv3.OpPut(keyOf(onlinePrefix, p.host), p.value, clientv3.WithLease(session.lease)))
	if err != nil {
		return nil, err
	}
	p.revision = r.Header.Revision
	s.log.Info("host connected", "host", p.host, "version", m.GetVersion())
	return p, nil
}

// leave marks the host as offline, unless it has since come by another stream.
// If the store is down, the session's end will.
func (p *presence) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	key := keyOf(onlinePrefix, p.host)
	p.record.LastSeenUnixNano = time.Now().UnixNano()
	if put, err := putMessage(keyOf(hostPrefix, p.host), p.record); err == nil {
		_, _ = p.s.store.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", p.value)).
			Then(clientv3.OpDelete(key), put).Commit()
	}
}

// inform sends the host what it is to run until ctx ends or another stream took
// over, with an error, or the lease is lost, without one. It returns the last
// state sent.
func (s *Server) inform(ctx context.Context, p *presence, news <-chan struct{}, stream *connect.ServerStream[serverpb.DesiredState], last *serverpb.DesiredState) (*serverpb.DesiredState, error) {
	for {
		var state *serverpb.DesiredState
		overtaken, revoked := false, false
		s.mirror.read(func(v *view) {
			if v == nil || v.revision < p.revision {
				return // not yet what this host wrote itself, which will be news
			}
			if o, ok := v.online[p.host]; ok && encodeJSON(o) != p.value {
				overtaken = true
			}
			revoked = p.revoked(v.identities[p.host])
			state = v.desired(p.host)
		})
		if revoked {
			return last, refuse(connect.CodeUnauthenticated, "the certificate of host %q was revoked", p.host)
		}
		if overtaken {
			return last, refuse(connect.CodeAborted, "host %q is connected by another stream: if two daemons use this name, give one another", p.host)
		}
		if state != nil && !sameState(state, last) {
			if err := stream.Send(state); err != nil {
				return last, err
			}
			s.metrics.sent.Inc()
			last = state
		}
		if lost, err := s.await(ctx, p, news); lost || err != nil {
			return last, err
		}
	}
}

// await returns at the next news, or when the stream is to end, or with true
// when the session is lost.
func (s *Server) await(ctx context.Context, p *presence, news <-chan struct{}) (lost bool, err error) {
	select {
	case <-news:
	case <-ctx.Done():
		return false, connect.NewError(connect.CodeCanceled, ctx.Err())
	case <-s.done:
		return false, errStopping()
	case <-p.session.lost:
		return true, nil
	}
	select {
	case <-time.After(coalesce):
	case <-ctx.Done():
	}
	return false, nil
}

// sameState compares all but the revision.
func sameState(a, b *serverpb.DesiredState) bool {
	if a == nil || b == nil {
		return a == b
	}
	revision := a.Revision
	a.Revision = b.Revision
	same := proto.Equal(a, b)
	a.Revision = revision
	return same
}
