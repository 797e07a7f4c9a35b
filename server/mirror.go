package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mirror follows the store, so that neither what hosts are to run nor what
// callers ask has to be read from it.
type mirror struct {
	client     *clientv3.Client
	log        *slog.Logger
	checkEvery time.Duration

	mu      sync.RWMutex
	view    *view         // nil until first loaded
	changed chan struct{} // closed at the next change
	suspect chan struct{} // has a value when the store seems to be another

	// hosts are who waits for what. To come and go is not to wait for readers.
	hostsMu sync.Mutex
	hosts   map[string]map[chan struct{}]struct{}
}

func newMirror(c *clientv3.Client, log *slog.Logger) *mirror {
	return &mirror{
		client: c, log: log, checkEvery: checkPeriod, changed: make(chan struct{}),
		hosts: map[string]map[chan struct{}]struct{}{}, suspect: make(chan struct{}, 1),
	}
}

// read calls f with the current view, nil before the first load, and returns a
// channel that is closed at the next change. f must not keep the view.
func (m *mirror) read(f func(*view)) <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(m.view)
	return m.changed
}

// subscribe returns a channel that has a value in it after a change of what the
// host is to run, or of who serves it, until cancel is called.
func (m *mirror) subscribe(host string) (news <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	m.hostsMu.Lock()
	defer m.hostsMu.Unlock()
	if m.hosts[host] == nil {
		m.hosts[host] = map[chan struct{}]struct{}{}
	}
	m.hosts[host][c] = struct{}{}
	return c, func() {
		m.hostsMu.Lock()
		defer m.hostsMu.Unlock()
		if delete(m.hosts[host], c); len(m.hosts[host]) == 0 {
			delete(m.hosts, host)
		}
	}
}

// update changes the view by f, which returns whom that concerns.
func (m *mirror) update(f func() concern) {
	m.mu.Lock()
	c := f()
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	m.hostsMu.Lock()
	defer m.hostsMu.Unlock()
	if c.all {
		for _, streams := range m.hosts {
			tell(streams)
		}
		return
	}
	for host := range c.hosts {
		tell(m.hosts[host])
	}
}

func tell(streams map[chan struct{}]struct{}) {
	for c := range streams {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last
		}
	}
}

const (
	reloadBackoff = 500 * time.Millisecond
	checkPeriod   = 30 * time.Second
)

// run follows the store until ctx ends. Whatever ends a watch (compaction, a
// store that was replaced, a lost leader), it loads anew and goes on.
func (m *mirror) run(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		err := m.follow(ctx, func() {
			if failing {
				m.log.Info("the store answers again")
			}
			failing = false
		})
		if ctx.Err() != nil {
			return
		}
		if !failing {
			m.log.Warn("load the store anew", "err", err)
		}
		failing = true
		select {
		case <-ctx.Done():
		case <-time.After(reloadBackoff):
		}
	}
}

var errReplaced = errors.New("the store was replaced")

// follow loads everything and then applies changes until something is wrong.
func (m *mirror) follow(ctx context.Context, loaded func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := loadView(ctx, m.client, m.log)
	if err != nil {
		return err
	}
	m.update(func() concern {
		m.view = v
		return concern{all: true}
	})
	loaded()

	watch := m.client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(v.revision+1))
	check := time.NewTicker(m.checkEvery)
	defer check.Stop()
	for {
		select {
		case r, ok := <-watch:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := r.Err(); err != nil {
				return err
			}
			m.apply(r)
		case <-check.C:
			if m.replaced(ctx) {
				return errReplaced
			}
		case <-m.suspect:
			if m.replaced(ctx) {
				return errReplaced
			}
		}
	}
}

func (m *mirror) apply(r clientv3.WatchResponse) {
	m.update(func() (c concern) {
		for _, e := range r.Events {
			if err := m.view.apply(e, &c); err != nil {
				m.log.Error("pass over a damaged entry of the store", "key", string(e.Kv.Key), "err", err)
			}
		}
		m.view.revision = max(m.view.revision, r.Header.Revision)
		return c
	})
}

// progressPause is how long a mirror that is behind is given to catch up by
// itself: the store may have gone on by what is not of interest, which only the
// store can tell.
const progressPause = 50 * time.Millisecond

// reach waits until the mirror holds what the store did when it answered so.
func (m *mirror) reach(ctx context.Context, now *etcdserverpb.ResponseHeader) error {
	for {
		reached, another := false, false
		changed := m.read(func(v *view) {
			another = v != nil && v.epoch != epochOf(now.ClusterId)
			reached = v != nil && !another && v.revision >= now.Revision
		})
		if reached {
			return nil
		}
		if another {
			select {
			case m.suspect <- struct{}{}:
			default:
			}
		}
		select {
		case <-changed:
		case <-time.After(progressPause):
			if err := m.client.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replaced tells whether the store is another one or has gone back in time: a
// watch would then wait for ever.
func (m *mirror) replaced(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now, err := m.client.Get(ctx, guardKey, clientv3.WithCountOnly())
	if err != nil {
		return false // it is down: the watch resumes by itself
	}
	replaced := false
	m.read(func(v *view) {
		replaced = now.Header.Revision < v.revision || epochOf(now.Header.ClusterId) != v.epoch
	})
	return replaced
}
