package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	lv "github.com/digitalocean/go-libvirt"
)

// ErrUnavailable is returned while there is no connection to libvirt.
var ErrUnavailable = errors.New("libvirt is not available")

var errClosed = errors.New("the driver is closed")

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second

	// silence is for how long nothing at all may be answered, once a call was
	// given up, before the connection is taken for dead.
	silence = 10 * time.Second
)

var sockets = []string{"/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"}

func defaultSocket() string {
	for _, s := range sockets {
		if _, err := os.Stat(s); err == nil {
			return s
		}
	}
	return sockets[0]
}

// session is one connection. It is never reused: done closes when it ends.
type session struct {
	*lv.Libvirt
	conn    *watchedConn
	answers atomic.Int64
}

func (s *session) done() <-chan struct{} { return s.conn.done }

// drop ends the connection at once; calls under way fail.
func (s *session) drop() { s.conn.Close() }

// watchedConn tells when its reading side ended. The library's own signal can
// be missed if the connection breaks while it is being set up.
type watchedConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.done) })
	}
	return n, err
}

// Dial gives the library the connection that is already there.
func (c *watchedConn) Dial() (net.Conn, error) { return c, nil }

func connect(ctx context.Context, opts Options) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", opts.Socket)
	if err != nil {
		return nil, fmt.Errorf("connect to libvirt: %w", explainDial(err, opts.Socket))
	}
	w := &watchedConn{Conn: conn, done: make(chan struct{})}
	s := &session{Libvirt: lv.NewWithDialer(w), conn: w}
	opened := make(chan error, 1)
	go func() { opened <- s.ConnectToURI(lv.ConnectURI(opts.URI)) }()
	select {
	case err = <-opened:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.drop()
		return nil, fmt.Errorf("open %s at %s: %w: %w", opts.URI, opts.Socket, ErrUnavailable, err)
	}
	return s, nil
}

func explainDial(err error, socket string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: no permission to use %s: run as root, or add the user to the group libvirt and log in again", ErrUnavailable, socket)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s: install libvirt and start libvirtd (or virtqemud)", ErrUnavailable, socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens at %s: start libvirtd (or virtqemud)", ErrUnavailable, socket)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// supervise renews the connection whenever it ends, until Close.
func (d *Driver) supervise(s *session) {
	for s != nil {
		select {
		case <-s.done():
		case <-d.ctx.Done():
			s.drop()
			return
		}
		d.mu.Lock()
		d.session, d.lastErr = nil, errors.New("the connection was lost")
		clear(d.domains)
		d.mu.Unlock()
		s = d.reconnect()
	}
}

// reconnect tries until it succeeds, or returns nil after Close.
func (d *Driver) reconnect() *session {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		s, err := connect(d.ctx, d.opts)
		if err == nil {
			if err = d.subscribe(s); err == nil {
				d.mu.Lock()
				d.session, d.lastErr = s, nil
				d.mu.Unlock()
				d.changes.resync()
				return s
			}
			s.drop()
		}
		d.mu.Lock()
		d.lastErr = err
		d.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-d.ctx.Done():
			return nil
		}
	}
}

func (d *Driver) current() (*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return nil, errClosed
	}
	if d.session == nil {
		if errors.Is(d.lastErr, ErrUnavailable) {
			return nil, d.lastErr
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, d.lastErr)
	}
	return d.session, nil
}

// call runs f, which makes calls that cannot be cancelled, until ctx ends. One
// given up goes on by itself; should then nothing be answered for a while, the
// connection is dropped, and with it whatever hangs on it.
func call[T any](ctx context.Context, d *Driver, f func(*lv.Libvirt) (T, error)) (T, error) {
	return callOn(ctx, d, nil, f)
}

// callOn is call for what needs the domain's lock inside libvirt. Waiting for
// that lock takes up one of the few workers of the connection: while one call
// given up still does, there is no other for that domain.
func callOn[T any](ctx context.Context, d *Driver, of *live, f func(*lv.Libvirt) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	if of != nil && of.held() {
		return zero, errHeld
	}
	s, err := d.current()
	if err != nil {
		return zero, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.opts.Timeout)
		defer cancel()
	}
	var value T
	done := make(chan struct{})
	go func() {
		value, err = f(s.Libvirt)
		s.answers.Add(1)
		close(done)
	}()
	select {
	case <-done:
		if lost(err) {
			return zero, fmt.Errorf("%w: the connection was lost: %w", ErrUnavailable, err)
		}
		return value, err
	case <-ctx.Done():
		go s.giveUp(done, silence)
		if of != nil {
			go of.await(done, s.done())
		}
		return zero, fmt.Errorf("wait for libvirt: %w", ctx.Err())
	}
}

// lost reports whether a call failed because the connection did.
func lost(err error) bool {
	var op *net.OpError
	return errors.Is(err, lv.ErrInterrupted) || errors.Is(err, syscall.EINVAL) || errors.As(err, &op)
}

// do is call for calls without a result.
func do(ctx context.Context, d *Driver, f func(*lv.Libvirt) error) error {
	return doOn(ctx, d, nil, f)
}

// doOn is callOn for calls without a result.
func doOn(ctx context.Context, d *Driver, of *live, f func(*lv.Libvirt) error) error {
	_, err := callOn(ctx, d, of, func(l *lv.Libvirt) (struct{}, error) { return struct{}{}, f(l) })
	return err
}

func (s *session) giveUp(done <-chan struct{}, silence time.Duration) {
	before := s.answers.Load()
	select {
	case <-done:
	case <-s.done():
	case <-time.After(silence):
		if s.answers.Load() == before {
			s.drop()
		}
	}
}
