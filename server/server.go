// Package server is the central management server: accounts, hosts, which
// shadow belongs to which VM, and configuration, kept in etcd.
//
// Host daemons hold a stream open (Watch) on which they are sent, whole each
// time, what they are to run, whenever that changes; they tell what they run
// by Report. Nothing is pushed step by step, so nothing is lost by a restart
// of either side or of etcd. Any number of servers may share one etcd.
//
// Keys, all under /gnomon/v1/, values in JSON:
//
//	accounts/NAME        Account: name, designated host, time created
//	hosts/NAME           Host: version, accelerator, capacity, last seen
//	online/NAME          exists while the host's stream is open; held by a lease
//	reports/HOST         what the host runs, as protobuf: associations, warm
//	                     shadows, amounts free and predicted
//	notices/HOST         what operators say of it: labels, cordoned
//	orders/ID            what a host is to do once, and what became of it; under a
//	                     lease
//	config/global        layer of parameters: {"values": {KEY: VALUE}}
//	config/account/NAME  layer
//	config/host/NAME     layer
//	config/vm/ID         layer, with the name the VM had when it was set
//	access/authority      the fleet's authority, its key sealed by the fleet key
//	access/host/NAME      identity: the key that a host joined with
//	access/join/ID        a token to join with, its secret hashed; under a lease
//	access/token/ID       a person's or a program's token, its secret hashed
//	config/guard         written with every change of configuration, so that
//	                     changes validated against each other are serialized;
//	                     holds the version
//	changes/VERSION      what that change did, when, by whom, and why
//
// The log of changes is under /gnomon/audit/v1/TIME-ID, which nobody mirrors.
//
// Names are escaped as in a URL's path. Heartbeats write nothing: each server
// keeps one lease alive, and stores reports only when they differ.
//
// Every server mirrors the store. Whom a change concerns is told of it, and no
// one else computes anything (concern.go); callers are answered from the mirror
// once it has what the store had when they called.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/semaphore"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/etcd"
	"github.com/gnomon-vm/gnomon/server/people"
	"github.com/gnomon-vm/gnomon/server/trust"
)

// Options configure a Server.
type Options struct {
	// DataDir is the directory of the embedded etcd.
	DataDir string

	// EtcdEndpoints are those of an existing cluster to use instead, with TLS
	// and credentials where it wants them.
	EtcdEndpoints []string
	EtcdTLS       *tls.Config
	EtcdUsername  string
	EtcdPassword  string

	// Version is told in the metrics.
	Version string

	// Log receives what operators should know; nil discards it.
	Log *slog.Logger

	// Registry takes the server's metrics in, and is what /metrics serves; nil
	// for one of its own.
	Registry *prometheus.Registry

	// FleetKey is the file of the key that seals the fleet's authority; it is
	// made with the authority. Without it there is none: no host can join, and
	// TLS returns nil. Names are further names and addresses that the server is
	// reached by, for its certificate.
	FleetKey string
	Names    []string

	// People is the provider whose people may log in; nil for none.
	People *people.Provider

	// Open lets everyone in as an administrator who is not known otherwise.
	Open bool

	// Routes are further handlers to serve, by http.ServeMux pattern.
	Routes map[string]Route

	// OnRetention, if set, is called by Run with the periods in effect, at
	// first and whenever they change. It is not to keep Run waiting.
	OnRetention func(Retention)
}

// Route is a handler beside the API, with the rule of who may call it.
type Route struct {
	Handler http.Handler
	Rule    func(*http.Request) access.Rule
}

// Server is one central management server.
type Server struct {
	log    *slog.Logger
	store  *etcd.Store
	mirror *mirror
	id     string

	sessions sessions
	hostLine *semaphore.Weighted // what hosts write waits here
	metrics  *metrics
	handler  http.Handler

	authority *trust.Authority // nil without a fleet key
	names     []string
	people    *people.Verifier // nil without a provider
	open      bool

	onRetention func(Retention)

	done     chan struct{} // closed when streams are to end
	stopOnce sync.Once

	mu      sync.Mutex
	links   map[string]*link // hosts seen by this server
	closing bool
	streams sync.WaitGroup
}

// requestTimeout bounds every request to etcd.
const requestTimeout = 5 * time.Second

// New opens the store. The error tells what to do, and nothing has been changed
// then.
func New(o Options) (*Server, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	where := etcd.Options{DataDir: o.DataDir, Logger: log}
	if len(o.EtcdEndpoints) > 0 {
		where = etcd.Options{Endpoints: o.EtcdEndpoints, TLS: o.EtcdTLS, Username: o.EtcdUsername, Password: o.EtcdPassword, Logger: log}
	}
	var verifier *people.Verifier
	if o.People != nil {
		var err error
		if verifier, err = people.New(*o.People); err != nil {
			return nil, fmt.Errorf("provider of identities: %w", err)
		}
	}
	store, err := etcd.Open(context.Background(), where)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: log, store: store, id: rand.Text(),
		mirror:      newMirror(store.Client, log),
		onRetention: o.OnRetention,
		names:       o.Names, open: o.Open, people: verifier,
		hostLine: semaphore.NewWeighted(hostWrites),
		done:     make(chan struct{}),
		links:    map[string]*link{},
	}
	s.sessions.store = store.Client
	if o.FleetKey != "" {
		if s.authority, err = openAuthority(context.Background(), store, o.FleetKey); err != nil {
			store.Close()
			return nil, err
		}
	}
	s.metrics = newMetrics(s, o.Registry, o.Version)
	s.handler = s.routes(o.Routes)
	return s, nil
}

// Handler serves the API, health, metrics and the routes of the Options. It
// wants an HTTP server as of NewHTTPServer.
func (s *Server) Handler() http.Handler { return s.handler }

// Run keeps hosts informed until ctx ends, then ends their streams. It returns
// an error only if the store failed for good.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.stop()
	var parts sync.WaitGroup
	parts.Go(func() { s.mirror.run(ctx) })
	parts.Go(func() { s.tellRetention(ctx) })
	parts.Go(func() { s.pruneChanges(ctx) })
	defer parts.Wait()
	defer cancel()
	select {
	case <-ctx.Done():
		return nil
	case <-s.done:
		return nil
	case err := <-s.store.Failed:
		return fmt.Errorf("the store cannot go on: %w; see that its disk has space and is well, then start again", err)
	}
}

// stop ends all streams and waits a while for them.
func (s *Server) stop() {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		close(s.done)
	})
	ended := make(chan struct{})
	go func() {
		s.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(releaseTimeout + time.Second):
	}
}

// Close ends everything and closes the store.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	s.sessions.end(ctx)
	if err := s.store.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// commit runs a transaction within the request timeout. What it changes is in
// the log of changes, if the context is of a call that changes something.
func (s *Server) commit(ctx context.Context, cmps []clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	same, put, err := s.record(ctx, ops)
	if err != nil {
		return nil, storeError(err)
	}
	r, err := s.store.Txn(ctx).If(append(cmps, same...)...).Then(append(ops, put...)...).Commit()
	if err != nil {
		return nil, storeError(err)
	}
	return r, nil
}

// hostWrites is how many writes there are at most at once that hosts cause. When
// a whole fleet comes back they would else crowd each other out: the store
// would get to each so late that its host has given up, and comes again. What is
// in the store's hands goes to its disk together, so that few would be slow.
const hostWrites = 1000

// commitForHost is commit for what hosts write, in the order of their calls.
func (s *Server) commitForHost(ctx context.Context, cmps []clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	if err := s.hostLine.Acquire(ctx, 1); err != nil {
		return nil, connect.NewError(connect.CodeCanceled, err) // the host has given up
	}
	defer s.hostLine.Release(1)
	select {
	case <-s.done:
		return nil, errStopping()
	default:
		return s.commit(ctx, cmps, ops...)
	}
}

// read calls f with everything, as it is in the store now, that the caller may
// see. f must not keep the view, nor change it.
func (s *Server) read(ctx context.Context, f func(*view) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now, err := s.store.Get(ctx, guardKey, clientv3.WithCountOnly())
	if err != nil {
		return storeError(err)
	}
	if err := s.mirror.reach(ctx, now.Header); err != nil {
		return storeError(err)
	}
	c, _ := access.From(ctx)
	s.mirror.read(func(v *view) {
		if c.Account != "" {
			v = v.of(c.Account)
		}
		err = f(v)
	})
	return err
}

// respond returns a response, or the error that came instead.
func respond[T any](r *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(r), nil
}

// conflictRetries is how often a transaction is tried again that another
// server's has overtaken.
const conflictRetries = 20
