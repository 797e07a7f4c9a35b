package libvirt

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

func TestOpenSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for socket, want := range map[string]string{
		filepath.Join(dir, "none"): "install libvirt and start libvirtd",
		dead:                       "nobody listens",
	} {
		_, err := Open(t.Context(), Options{Socket: socket})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), socket) {
			t.Errorf("Open(%s) = %v, want %q", socket, err, want)
		}
	}
	err = explainDial(&net.OpError{Err: os.NewSyscallError("connect", os.ErrPermission)}, "/s")
	if !strings.Contains(err.Error(), "group libvirt") {
		t.Errorf("without permission: %v", err)
	}
}

func TestOpenGivesUpOnSilence(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{Socket: socket}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open of a daemon that says nothing = %v", err)
	}
}

// proxy stands between the driver and libvirt; it can be cut and put back.
type proxy struct {
	socket, target string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	mute  bool // swallow what libvirt answers
}

func newProxy(t *testing.T) *proxy {
	p := &proxy{socket: filepath.Join(t.TempDir(), "proxy"), target: defaultSocket()}
	p.restore(t)
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) restore(t *testing.T) {
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.relay(c)
		}
	}()
}

func (p *proxy) relay(c net.Conn) {
	s, err := net.Dial("unix", p.target)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, c, s)
	p.mu.Unlock()
	go func() { io.Copy(s, c); s.Close() }()
	go func() { io.Copy(muteWriter{p, c}, s); c.Close() }()
}

type muteWriter struct {
	p *proxy
	w io.Writer
}

func (m muteWriter) Write(b []byte) (int, error) {
	m.p.mu.Lock()
	mute := m.p.mute
	m.p.mu.Unlock()
	if mute {
		return len(b), nil
	}
	return m.w.Write(b)
}

func (p *proxy) setMute(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = on
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.l.Close()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func TestReconnects(t *testing.T) {
	p := newProxy(t)
	d := open(t, Options{Socket: p.socket})
	changes, err := d.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := d.Host(t.Context()); err != nil {
			t.Fatalf("Host: %v", err)
		}
		p.cut()
		poll(t, "the loss to be noticed", func() bool {
			_, err := d.Host(t.Context())
			if err != nil && !errors.Is(err, ErrUnavailable) {
				t.Errorf("Host without a connection = %v", err)
			}
			return err != nil
		})
		p.restore(t)
		if c := <-changes; c.Kind != hypervisor.Resync {
			t.Errorf("change after the connection was lost = %+v, want Resync", c)
		}
	}
	if _, err := d.Machines(t.Context()); err != nil {
		t.Errorf("Machines after reconnecting: %v", err)
	}
}

func TestCallsAreBounded(t *testing.T) {
	p := newProxy(t)
	d := open(t, Options{Socket: p.socket})
	p.setMute(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Host(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Host of a daemon that went silent = %v", err)
	}
	if err := d.Close(); err != nil { // nothing may hang on it
		t.Error(err)
	}
	if _, err := d.Host(t.Context()); err == nil {
		t.Error("Host succeeds after Close")
	}
}

func TestSilentConnectionIsDropped(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	s := &session{conn: &watchedConn{Conn: client, done: make(chan struct{})}}
	reading := make(chan error, 1)
	go func() {
		_, err := s.conn.Read(make([]byte, 1))
		reading <- err
	}()
	go s.giveUp(make(chan struct{}), time.Millisecond)
	if err := <-reading; err == nil {
		t.Error("the connection still reads")
	}
	<-s.done()
}
