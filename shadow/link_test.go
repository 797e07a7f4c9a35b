package shadow

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

var quiet = slog.New(slog.DiscardHandler)

func helloOf(nonce uint64) *agentpb.ToHost {
	return &agentpb.ToHost{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{Nonce: nonce}}}
}

func pongOf(id uint64) *agentpb.ToHost {
	return &agentpb.ToHost{Message: &agentpb.ToHost_Pong{Pong: &agentpb.Pong{Id: id}}}
}

func usageOf(seq uint64) *agentpb.ToAgent {
	return &agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: &agentpb.Usage{Seq: seq}}}
}

// peer is the agent's end of a link, played by the test.
type peer struct {
	*wire.Conn
	raw net.Conn
}

// linkTo returns a link on a real socket and its other end, after the Hello.
func linkTo(t *testing.T) (*Link, peer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	peers := make(chan peer, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		p := peer{wire.NewConn(c), c}
		_ = p.WriteToHost(helloOf(7))
		peers <- p
	}()
	l, err := Dial(t.Context(), socket, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	p := <-peers
	t.Cleanup(func() { p.Close() })
	return l, p
}

// ended waits for the end of a link and returns why it ended.
func ended(t *testing.T, l *Link) error {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case _, ok := <-l.Messages():
			if !ok {
				return l.Err()
			}
		case <-limit:
			t.Fatal("the link did not end")
		}
	}
}

func TestHostileInputEndsTheLink(t *testing.T) {
	message := func(m *agentpb.ToHost) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return wire.AppendFrame(nil, b)
	}
	for name, tc := range map[string]struct {
		send []byte
		want error
	}{
		"garbage":      {bytes.Repeat([]byte("garbage "), 100), wire.ErrGarbage},
		"no message":   {wire.AppendFrame(nil, []byte("\xff\xff\xff")), wire.ErrMalformed},
		"empty":        {wire.AppendFrame(nil, nil), wire.ErrMalformed},
		"oversized":    {wire.AppendFrame(nil, make([]byte, wire.MaxPayload+1)), wire.ErrTooLarge},
		"long log":     {message(&agentpb.ToHost{Message: &agentpb.ToHost_Log{Log: &agentpb.Log{Text: strings.Repeat("x", 2000)}}}), wire.ErrMalformed},
		"too fast":     {bytes.Repeat(message(pongOf(1)), 3*maxBurst), ErrTooFast},
		"hello flood":  {bytes.Repeat(message(helloOf(1)), 3*maxBurst), ErrTooFast},
		"large state":  {message(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: &agentpb.State{Parts: 1, Data: make([]byte, 33<<10)}}}), wire.ErrMalformed},
		"many parts":   {message(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: &agentpb.State{Parts: 1 << 30, Data: []byte{1}}}}), wire.ErrMalformed},
		"negative ask": {message(&agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: &agentpb.Proposal{Wants: []*agentpb.Want{{Resource: 1, Level: -1}}}}}), wire.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			l, p := linkTo(t)
			go func() { _, _ = p.raw.Write(tc.send) }()
			go func() { _, _ = io.Copy(io.Discard, p.raw) }()
			err := ended(t, l)
			if !errors.Is(err, tc.want) || !IsViolation(err) {
				t.Errorf("the link ended with %v, want %v", err, tc.want)
			}
		})
	}
}

func TestLinkOutlivesProperUse(t *testing.T) {
	l, p := linkTo(t)
	go func() {
		for i := range 100 {
			_ = p.WriteToHost(pongOf(uint64(i)))
		}
	}()
	for i := range 100 {
		if m := <-l.Messages(); m.GetPong().GetId() != uint64(i) {
			t.Fatalf("message %d is %v", i, m)
		}
	}
	p.Close()
	if err := ended(t, l); err == nil || IsViolation(err) {
		t.Errorf("the agent went away; the link says %v", err)
	}
}

func TestOversizedMessageOfOursIsLeftOut(t *testing.T) {
	l, p := linkTo(t)
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: &agentpb.History{Demand: make([]float64, 10_000)}}})
	l.Send(usageOf(1))
	for {
		m, err := p.ReadToAgent()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetUsage().GetSeq() == 1 {
			return
		}
	}
}

func TestCloseIsNoError(t *testing.T) {
	l, _ := linkTo(t)
	l.Close()
	if err := ended(t, l); err != nil {
		t.Errorf("closed, the link says %v", err)
	}
	l.Close()
}

func TestSlowAgentNeverBlocksTheHost(t *testing.T) {
	l, p := linkTo(t)
	const sent = 200_000
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Settings{Settings: &agentpb.Settings{Model: "kept"}}})
	for i := range uint64(sent) { // far more than the socket holds
		l.Send(usageOf(i + 1))
	}
	if l.Dropped() == 0 {
		t.Error("nothing was dropped: where did it all go?")
	}
	// The newest comes through, in order, and so do the settings.
	last, settings := uint64(0), false
	for last < sent {
		m, err := p.ReadToAgent()
		if err != nil {
			t.Fatal(err)
		}
		settings = settings || m.GetSettings() != nil
		if u := m.GetUsage(); u != nil {
			if u.GetSeq() <= last {
				t.Fatalf("event %d after %d", u.GetSeq(), last)
			}
			last = u.GetSeq()
		}
	}
	if !settings {
		t.Error("the settings were dropped for usage events")
	}
}

func TestWelcomeFollowsTheNonce(t *testing.T) {
	l, p := linkTo(t)
	l.Welcome(&agentpb.Welcome{Vm: "a", Session: 1})
	if err := p.WriteToHost(helloOf(8)); err != nil { // the agent started anew
		t.Fatal(err)
	}
	for _, want := range []uint64{7, 8} {
		var w *agentpb.Welcome
		for w == nil {
			m, err := p.ReadToAgent()
			if err != nil {
				t.Fatal(err)
			}
			w = m.GetWelcome()
		}
		if w.GetNonce() != want || w.GetVm() != "a" {
			t.Errorf("got %v, want nonce %d", w, want)
		}
	}
}

func TestWhatComesBeforeTheHelloIsIgnored(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		p := wire.NewConn(c)
		// The rest of a frame and a message of the session before.
		_, _ = c.Write([]byte("…the rest of a frame"))
		_ = p.WriteToHost(pongOf(1))
		if m, err := p.ReadToAgent(); err == nil && m.GetKnock() != nil {
			_ = p.WriteToHost(helloOf(9))
			_ = p.WriteToHost(pongOf(2))
		}
	}()
	l, err := Dial(t.Context(), socket, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if m := <-l.Messages(); m.GetPong().GetId() != 2 {
		t.Errorf("the first message is %v", m)
	}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		defer guest.Close()
		l := newLink(host, quiet)
		agent := wire.NewConn(guest)
		go func() { // says hello, answers four pings, falls silent
			_ = agent.WriteToHost(helloOf(1))
			pings := 0
			for {
				m, err := agent.ReadToAgent()
				if err != nil {
					return
				}
				if p := m.GetPing(); p != nil && pings < 4 {
					pings++
					_ = agent.WriteToHost(pongOf(p.GetId()))
				}
			}
		}()
		if err := l.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		start, pongs := time.Now(), 0
		for range l.Messages() {
			pongs++
		}
		if err := l.Err(); !errors.Is(err, ErrSilent) || !IsViolation(err) {
			t.Errorf("the link ended with %v", err)
		}
		if lived := time.Since(start); pongs != 4 || lived < silenceLimit || lived > silenceLimit+6*pingEvery {
			t.Errorf("%d pongs, and the link lived for %v", pongs, lived)
		}
	})
}

func TestNoHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		defer guest.Close()
		go func() { _, _ = io.Copy(io.Discard, guest) }()
		l := newLink(host, quiet)
		if err := l.open(t.Context()); !errors.Is(err, ErrSilent) {
			t.Errorf("got %v", err)
		}
	})
}

// Nobody waits for a template of an agent that says hello and no more.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		defer guest.Close()
		go func() {
			_ = wire.NewConn(guest).WriteToHost(helloOf(1))
			_, _ = io.Copy(io.Discard, guest)
		}()
		l := newLink(host, quiet)
		if err := l.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		start := time.Now()
		if err := answered(t.Context(), l, func(*agentpb.ToHost) {}); !errors.Is(err, ErrSilent) || time.Since(start) != readyTimeout {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestDialStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, filepath.Join(t.TempDir(), "none"), quiet)
	if !errors.Is(err, context.DeadlineExceeded) || IsViolation(err) {
		t.Errorf("got %v", err)
	}
}
