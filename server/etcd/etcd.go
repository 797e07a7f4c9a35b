// Package etcd opens the store of the central management server: an embedded
// etcd server that nothing outside the process can reach, or a client of an
// existing cluster.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Options say which etcd to open. Exactly one of DataDir and Endpoints is set.
type Options struct {
	// DataDir is the directory of the embedded server; it is created if need
	// be.
	DataDir string

	// Endpoints are the client addresses of an existing cluster, with TLS and
	// credentials where it wants them.
	Endpoints []string
	TLS       *tls.Config
	Username  string
	Password  string

	// Logger receives etcd's warnings and errors.
	Logger *slog.Logger
}

// Store is an open etcd.
type Store struct {
	*clientv3.Client

	// Failed yields once, when the embedded server cannot go on, for example
	// because the disk is full.
	Failed <-chan error

	once  sync.Once
	close func() error
}

// Close ends the client and the embedded server, once.
func (s *Store) Close() (err error) {
	s.once.Do(func() { err = s.close() })
	return err
}

// Open opens the store. It fails, with a message that tells what to do, before
// it has changed anything.
func Open(ctx context.Context, o Options) (*Store, error) {
	switch {
	case o.DataDir != "" && len(o.Endpoints) > 0:
		return nil, errors.New("open etcd: give a data directory or endpoints, not both")
	case len(o.Endpoints) > 0:
		return openCluster(ctx, o)
	case o.DataDir != "":
		return openEmbedded(ctx, o)
	}
	return nil, errors.New("open etcd: want a data directory or the endpoints of a cluster")
}
