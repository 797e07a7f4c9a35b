package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// host is a simulated host: its link to the server is real, and its VMs are
// what it reports.
type host struct {
	f        *fleet
	number   int
	name     string
	client   serverpbconnect.HostLinkServiceClient
	digest   string
	linked   atomic.Bool // its stream is open and has told it something
	reported atomic.Bool // what it runs is known to the server

	mu    sync.Mutex
	state *serverpb.DesiredState
	at    time.Time // of the state
}

// fleet is many of them.
type fleet struct {
	o       options
	hosts   []*host
	running sync.WaitGroup
	cancel  context.CancelFunc
	news    chan struct{} // has a value after a state or a report

	mu    sync.Mutex
	beats []time.Duration
}

func newFleet(o options, url string, n int) *fleet {
	f := &fleet{o: o, news: make(chan struct{}, 1), cancel: func() {}}
	for i := range n {
		f.hosts = append(f.hosts, &host{
			f: f, number: i, name: fmt.Sprintf("host-%05d", i), digest: uuid.NewString(),
			client: serverpbconnect.NewHostLinkServiceClient(connection(), url),
		})
	}
	return f
}

// connection is a client with a TCP connection of its own, as a host's is. It is
// more patient: all hosts together have to share one machine with the server.
func connection() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols: &p,
		HTTP2:     &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: time.Minute},
	}}
}

// start has all hosts connect at once.
func (f *fleet) start(ctx context.Context) {
	ctx, f.cancel = context.WithCancel(ctx)
	for _, h := range f.hosts {
		f.running.Go(func() { h.watch(ctx) })
		f.running.Go(func() { h.beat(ctx) })
	}
}

func (f *fleet) stop() {
	f.cancel()
	f.running.Wait()
}

func (f *fleet) told() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// watch keeps the stream open, with the pauses that a host makes.
func (h *host) watch(ctx context.Context) {
	const first, last = 200 * time.Millisecond, 3 * time.Second
	for wait := first; ctx.Err() == nil; wait = min(2*wait, last) {
		stream, err := h.client.Watch(ctx, connect.NewRequest(&serverpb.WatchRequest{
			Host: h.name, Version: "scale", Accel: "kvm", Capacity: map[string]int64{"cpu": 64_000, "memory": 256 << 30},
		}))
		if err == nil {
			for stream.Receive() {
				h.mu.Lock()
				h.state, h.at = stream.Msg(), time.Now()
				h.mu.Unlock()
				h.linked.Store(true)
				h.f.told()
				wait = first
			}
			h.linked.Store(false)
			_ = stream.Close()
		}
		pause(ctx, wait/2+rand.N(wait/2))
	}
}

// beat reports while the host is linked: the whole at first and whenever the
// server asks for it, then what is free.
func (h *host) beat(ctx context.Context) {
	pause(ctx, rand.N(h.f.o.beat))
	tick := time.NewTicker(h.f.o.beat)
	defer tick.Stop()
	for ctx.Err() == nil {
		if h.linked.Load() {
			began := time.Now()
			if h.report(ctx, !h.reported.Load()) {
				h.f.answered(time.Since(began))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (h *host) report(ctx context.Context, whole bool) bool {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // as a host's
	defer cancel()
	r := &serverpb.ReportRequest{
		Host: h.name, Digest: h.digest, Unchanged: !whole,
		Free:      map[string]int64{"cpu": 20_000 + rand.Int64N(1000), "memory": 64<<30 + rand.Int64N(1<<30)},
		Predicted: map[string]int64{"cpu": 30_000 + rand.Int64N(1000), "memory": 128<<30 + rand.Int64N(1<<30)},
	}
	if whole {
		for i := range h.f.o.vms {
			r.Associations = append(r.Associations, &serverpb.Association{
				Vm: fmt.Sprintf("%08x-0000-4000-8000-%012x", h.number, i), VmName: fmt.Sprintf("%s-vm-%d", h.name, i),
				Account: fmt.Sprintf("account-%d", (h.number*h.f.o.vms+i)%1000),
				Shadow:  fmt.Sprintf("gnomon-%s-vm-%d", h.name, i), ShadowState: "running",
			})
		}
	}
	res, err := h.client.Report(ctx, connect.NewRequest(r))
	if err != nil {
		return false
	}
	if h.reported.Swap(!res.Msg.GetResend()) != !res.Msg.GetResend() {
		h.f.told()
	}
	return true
}

// last returns the latest state and when it came.
func (h *host) last() (*serverpb.DesiredState, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.at
}

func (f *fleet) answered(latency time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beats = append(f.beats, latency)
}

// takeBeats returns how long each heartbeat took since the last time.
func (f *fleet) takeBeats() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.beats
	f.beats = nil
	return all
}

// patience is how long the fleet may take for one thing.
const patience = 5 * time.Minute

// wait waits until all hosts are so.
func (f *fleet) wait(ctx context.Context, what string, ok func(*host) bool) error {
	deadline := time.After(patience)
	left := f.hosts
	for {
		var not []*host
		for _, h := range left {
			if !ok(h) {
				not = append(not, h)
			}
		}
		if left = not; len(left) == 0 {
			return nil
		}
		select {
		case <-f.news:
			pause(ctx, 5*time.Millisecond) // others are about to follow
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("waited %v in vain for %s: %d are not", patience, what, len(left))
		}
	}
}

// change sets a global parameter and returns how long after each host had it.
func (f *fleet) change(ctx context.Context, s *server, hold string) ([]time.Duration, error) {
	api := serverpbconnect.NewManagementServiceClient(connection(), s.url)
	began := time.Now()
	if _, err := api.SetConfig(ctx, connect.NewRequest(&serverpb.SetConfigRequest{Values: map[string]string{"hold": hold}})); err != nil {
		return nil, err
	}
	has := func(h *host) bool {
		state, _ := h.last()
		return state.GetGlobal()["hold"] == hold
	}
	if err := f.wait(ctx, "all hosts to have the change", has); err != nil {
		return nil, err
	}
	delays := make([]time.Duration, len(f.hosts))
	for i, h := range f.hosts {
		_, at := h.last()
		delays[i] = at.Sub(began)
	}
	return delays, nil
}

// outage kills the server, has it back after a while, and returns how long
// after its return each host was told its state.
func (f *fleet) outage(ctx context.Context, s *server, away time.Duration) (spread, error) {
	s.kill()
	pause(ctx, away)
	began := time.Now()
	if err := s.launch(); err != nil {
		return spread{}, err
	}
	since := func(h *host) bool {
		_, at := h.last()
		return at.After(began)
	}
	if err := f.wait(ctx, "all hosts to be back", since); err != nil {
		return spread{}, err
	}
	delays := make([]time.Duration, len(f.hosts))
	for i, h := range f.hosts {
		_, at := h.last()
		delays[i] = at.Sub(began)
	}
	return spreadOf(delays), nil
}
