package server

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseSeconds is how long hosts count as connected after their server died.
const leaseSeconds = 10

// session is a lease of this server. All hosts with a stream here are online by
// it, so that keeping ten thousand of them online costs what one does.
type session struct {
	lease clientv3.LeaseID
	lost  chan struct{} // closed when it has ended
}

// sessions has at most one session at a time.
type sessions struct {
	store *clientv3.Client

	mu   sync.Mutex
	last *session
}

// current returns the session, a new one if the last has ended.
func (k *sessions) current(ctx context.Context) (*session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last != nil {
		select {
		case <-k.last.lost:
		default:
			return k.last, nil
		}
	}
	ctx, stop := context.WithTimeout(ctx, requestTimeout)
	defer stop()
	grant, err := k.store.Grant(ctx, leaseSeconds)
	if err != nil {
		return nil, storeError(err)
	}
	alive, err := k.store.KeepAlive(context.WithoutCancel(ctx), grant.ID) // until the client is closed
	if err != nil {
		return nil, storeError(err)
	}
	s := &session{lease: grant.ID, lost: make(chan struct{})}
	go func() {
		defer close(s.lost)
		for range alive {
		}
	}()
	k.last = s
	return s, nil
}

// end gives the session up: what is online by it no longer is.
func (k *sessions) end(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last != nil {
		_, _ = k.store.Revoke(ctx, k.last.lease) // if the store is down, it ends by itself
	}
}
