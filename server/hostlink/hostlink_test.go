package hostlink

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// scripted sends one list of states on each stream; the last stays open.
type scripted struct {
	serverpbconnect.UnimplementedHostLinkServiceHandler
	mu      sync.Mutex
	streams [][]*serverpb.DesiredState
}

func (s *scripted) Watch(ctx context.Context, _ *connect.Request[serverpb.WatchRequest], stream *connect.ServerStream[serverpb.DesiredState]) error {
	s.mu.Lock()
	states := s.streams[0]
	last := len(s.streams) == 1
	if !last {
		s.streams = s.streams[1:]
	}
	s.mu.Unlock()
	for _, d := range states {
		if err := stream.Send(d); err != nil {
			return err
		}
	}
	if last {
		<-ctx.Done()
	}
	return connect.NewError(connect.CodeUnavailable, io.EOF)
}

func serve(t *testing.T, s *scripted) (address string) {
	mux := http.NewServeMux()
	mux.Handle(serverpbconnect.NewHostLinkServiceHandler(s))
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: mux, Protocols: &p}
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { web.Close() })
	return l.Addr().String()
}

func state(epoch string, revision int64) *serverpb.DesiredState {
	return &serverpb.DesiredState{Epoch: epoch, Revision: revision}
}

func run(ctx context.Context, o Options) { New(o).Run(ctx, &serverpb.WatchRequest{Host: "h"}) }

func TestOlderStatesAreIgnored(t *testing.T) {
	address := serve(t, &scripted{streams: [][]*serverpb.DesiredState{
		{state("a", 5), state("a", 7)},
		{state("a", 6)}, // of a server that lags
		{state("a", 7), state("a", 8)},
		{state("b", 1)}, // the store began anew
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []int64
	var statuses []string
	run(ctx, Options{
		Servers: Servers{URLs: []string{"http://" + address}},
		OnState: func(d *serverpb.DesiredState) {
			if got = append(got, d.GetRevision()); d.GetEpoch() == "b" {
				cancel()
			}
		},
		OnStatus: func(s string) { statuses = append(statuses, s) },
	})
	if want := []int64{5, 7, 7, 8, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(statuses) != 7 || statuses[0] != Connected || statuses[1] != "EOF" || statuses[6] != Connected {
		t.Errorf("statuses %q", statuses)
	}
}

// A server that has vanished without a word (a cut cable, a dead machine) is
// noticed within seconds.
func TestSilenceIsNoticed(t *testing.T) {
	t.Parallel()
	address := serve(t, &scripted{streams: [][]*serverpb.DesiredState{{state("a", 1)}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close(); up.Close() })
			go forward(up, c, silent)
			go forward(c, up, silent)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var since time.Time
	run(ctx, Options{
		Servers: Servers{URLs: []string{"http://" + l.Addr().String()}},
		OnState: func(*serverpb.DesiredState) {
			since = time.Now()
			close(silent)
		},
		OnStatus: func(s string) {
			if s != Connected {
				cancel()
			}
		},
	})
	if took := time.Since(since); since.IsZero() || took > 15*time.Second {
		t.Errorf("noticed after %v", took)
	}
}

// forward copies until silent is closed, then swallows everything.
func forward(to io.Writer, from io.Reader, silent <-chan struct{}) {
	b := make([]byte, 1<<12)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		select {
		case <-silent:
		default:
			_, _ = to.Write(b[:n])
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	run(ctx, Options{
		Servers: Servers{URLs: []string{"http://127.0.0.1:1"}},
		OnStatus: func(s string) {
			if s == "" || s == Connected {
				t.Errorf("status %q", s)
			}
			cancel()
		},
	})
}
