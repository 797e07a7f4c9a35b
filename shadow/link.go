package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

const (
	dialRetry = 100 * time.Millisecond
	knockPace = time.Second

	// helloTimeout is how long a shadow may take from a connection to its Hello:
	// a cold boot on a busy host without KVM.
	helloTimeout = 120 * time.Second

	// An agent is asked for a sign of life every pingEvery and must give one
	// within silenceLimit.
	pingEvery    = 5 * time.Second
	silenceLimit = 30 * time.Second

	// An agent may send maxRate messages a second for long, and maxBurst at once.
	maxRate  = 50
	maxBurst = 200

	// maxSplice is how much of an earlier stream, in bytes, may come before the
	// first frame.
	maxSplice = 1 << 20

	// maxQueue is how many messages may wait for a slow agent.
	maxQueue = 64
)

// The ways in which an agent ends its link by its own fault.
var (
	ErrTooFast = errors.New("too many messages")
	ErrSilent  = errors.New("no sign of life")
)

// IsViolation reports whether a link ended because its agent does not keep to
// the protocol, so that connecting again is of no use.
func IsViolation(err error) bool {
	for _, v := range []error{wire.ErrMalformed, wire.ErrTooLarge, wire.ErrGarbage, ErrTooFast, ErrSilent} {
		if errors.Is(err, v) {
			return true
		}
	}
	return false
}

// Link is the host's end of one shadow's channel. Its methods may be called
// concurrently and none waits for the agent.
type Link struct {
	conn     *wire.Conn
	log      *slog.Logger
	messages chan *agentpb.ToHost
	done     chan struct{} // closed when the link has ended
	greeted  chan struct{} // closed at the first Hello
	queue    queue
	limit    limiter

	mu      sync.Mutex
	err     error
	welcome *agentpb.Welcome // as last sent
	hello   *agentpb.Hello   // the newest
	heard   time.Time
}

// Dial connects to a shadow's channel, retrying while the socket is not there,
// knocks, and waits for the agent's Hello. The link then waits for the caller's
// Welcome. One shadow has one link: a second would wait for the first to close.
func Dial(ctx context.Context, socket string, log *slog.Logger) (*Link, error) {
	c, err := dialSocket(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("link to shadow: %w", err)
	}
	l := newLink(c, log)
	if err := l.open(ctx); err != nil {
		return nil, fmt.Errorf("link to shadow: %w", err)
	}
	return l, nil
}

func newLink(c net.Conn, log *slog.Logger) *Link {
	return &Link{
		conn: wire.NewConn(c), log: log,
		messages: make(chan *agentpb.ToHost, 16), done: make(chan struct{}), greeted: make(chan struct{}),
		queue: newQueue(), limit: limiter{tokens: maxBurst},
	}
}

// open starts the link and waits for the Hello.
func (l *Link) open(ctx context.Context) error {
	ctx, cancel := withHelloTimeout(ctx)
	defer cancel()
	l.conn.AllowSkip(maxSplice)
	go l.receive()
	go l.transmit()
	if err := l.knock(ctx); err != nil {
		l.end(err)
		<-l.done
		return err
	}
	go l.watch()
	return nil
}

func withHelloTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, helloTimeout, fmt.Errorf("%w: no hello within %v", ErrSilent, helloTimeout))
}

func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	ctx, cancel := withHelloTimeout(ctx)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		case <-time.After(dialRetry):
		}
	}
}

// knock asks for a Hello until one comes.
func (l *Link) knock(ctx context.Context) error {
	pace := time.NewTicker(knockPace)
	defer pace.Stop()
	for {
		l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Knock{Knock: &agentpb.Knock{}}})
		select {
		case <-l.greeted:
			return nil
		case <-l.done:
			return l.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-pace.C:
		}
	}
}

// watch asks for signs of life until the link ends.
func (l *Link) watch() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for id := uint64(1); ; id++ {
		select {
		case <-l.done:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		quiet := time.Since(l.heard)
		l.mu.Unlock()
		if quiet > silenceLimit {
			l.end(fmt.Errorf("%w for %v", ErrSilent, quiet.Round(time.Second)))
			return
		}
		l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: id}}})
	}
}

// Hello returns the agent's newest Hello.
func (l *Link) Hello() *agentpb.Hello {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hello
}

// Welcome opens the session, or gives the shadow another VM. The link puts in
// the nonce, and repeats it should the agent say hello again.
func (l *Link) Welcome(w *agentpb.Welcome) {
	l.mu.Lock()
	l.welcome = proto.CloneOf(w)
	l.mu.Unlock()
	l.sendWelcome()
}

func (l *Link) sendWelcome() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.welcome == nil {
		return
	}
	w := proto.CloneOf(l.welcome)
	w.Nonce = l.hello.GetNonce()
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Welcome{Welcome: w}})
}

// SettingsOf is what of a VM's parameters its agent is told.
func SettingsOf(p config.Parameters) *agentpb.Settings {
	return wire.SettingsTo(wire.Settings{
		MonitoringInterval: p.MonitoringInterval, PredictionHorizon: p.PredictionHorizon,
		Thresholds: p.PreAllocationThreshold, Model: p.ForecastModel,
		Price: p.ShortagePrice, Season: p.ForecastSeason,
	})
}

// Send queues a message; it must not be changed afterwards. If the agent is
// slow and the queue full, the oldest usage event makes room: a newer one tells
// more.
func (l *Link) Send(m *agentpb.ToAgent) { l.queue.put(m) }

// Dropped returns how many messages a slow agent missed.
func (l *Link) Dropped() int64 { return l.queue.lost() }

// Messages returns the agent's messages: all but its Hellos, checked. The
// channel is closed when the link ends.
func (l *Link) Messages() <-chan *agentpb.ToHost { return l.messages }

// Err returns why the link ended, nil while it has not or if Close ended it.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, net.ErrClosed) {
		return nil
	}
	return l.err
}

// Close ends the link. It may be called more than once.
func (l *Link) Close() { l.end(net.ErrClosed) }

// end ends the link for a reason; the first one counts.
func (l *Link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		l.log.Debug("link ended", "why", err, "dropped", l.queue.lost())
		l.queue.close()
		l.conn.Close()
	}
}

// transmit writes what is queued until the link ends.
func (l *Link) transmit() {
	for {
		m, ok := l.queue.take()
		if !ok {
			return
		}
		err := l.conn.WriteToAgent(m)
		if errors.Is(err, wire.ErrTooLarge) {
			l.log.Error("message not sent", "err", err) // ours, not the agent's fault
			continue
		}
		if err != nil {
			l.end(fmt.Errorf("write to agent: %w", err))
			return
		}
	}
}

// receive reads until the link ends.
func (l *Link) receive() {
	defer close(l.done)
	defer close(l.messages)
	for {
		m, err := l.read()
		if err != nil {
			l.end(err)
			return
		}
		if h := m.GetHello(); h != nil {
			// One repeated for a second knock has its Welcome already.
			if l.greet(h) {
				l.sendWelcome()
			}
			continue
		}
		if l.Hello() == nil {
			continue // of an earlier session
		}
		if !l.deliver(m) {
			return
		}
	}
}

// read returns the next message, or why there shall be no further one.
func (l *Link) read() (*agentpb.ToHost, error) {
	m, err := l.conn.ReadToHost()
	if err != nil {
		return nil, fmt.Errorf("read from agent: %w", err)
	}
	now := time.Now()
	if !l.limit.allow(now) {
		return nil, fmt.Errorf("read from agent: %w: more than %d a second", ErrTooFast, maxRate)
	}
	l.mu.Lock()
	l.heard = now
	l.mu.Unlock()
	return m, nil
}

// greet takes in a Hello and reports whether it is a new one. From the first on,
// every byte must be of a frame.
func (l *Link) greet(h *agentpb.Hello) (fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hello == nil {
		l.conn.AllowSkip(0)
		close(l.greeted)
	}
	fresh = l.hello == nil || l.hello.GetNonce() != h.GetNonce()
	l.hello = h
	l.log.Debug("hello", "agent", h.GetVersion(), "kernel", h.GetKernel())
	return fresh
}

// deliver hands a message on; it reports false if the link was closed meanwhile.
func (l *Link) deliver(m *agentpb.ToHost) bool {
	select {
	case l.messages <- m:
		return true
	case <-l.queue.closed:
		return false
	}
}
