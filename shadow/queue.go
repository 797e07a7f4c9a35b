package shadow

import (
	"slices"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// queue holds what waits to be sent, at most maxQueue messages.
type queue struct {
	mu      sync.Mutex
	waiting []*agentpb.ToAgent
	dropped int64
	ready   chan struct{} // holds a token while something waits
	closed  chan struct{}
}

func newQueue() queue {
	return queue{ready: make(chan struct{}, 1), closed: make(chan struct{})}
}

// put appends a message. A full queue gives up its oldest usage event, else its
// oldest message.
func (q *queue) put(m *agentpb.ToAgent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxQueue {
		oldest := max(0, slices.IndexFunc(q.waiting, func(m *agentpb.ToAgent) bool { return m.GetUsage() != nil }))
		q.waiting = slices.Delete(q.waiting, oldest, oldest+1)
		q.dropped++
	}
	q.waiting = append(q.waiting, m)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take waits for the next message; it returns false once the queue is closed.
func (q *queue) take() (*agentpb.ToAgent, bool) {
	for {
		q.mu.Lock()
		if len(q.waiting) > 0 {
			m := q.waiting[0]
			q.waiting = slices.Delete(q.waiting, 0, 1)
			q.mu.Unlock()
			return m, true
		}
		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-q.closed:
			return nil, false
		}
	}
}

func (q *queue) lost() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

func (q *queue) close() { close(q.closed) }

// limiter is a token bucket over an agent's messages. Only the receiving
// goroutine uses it.
type limiter struct {
	tokens float64
	at     time.Time
}

// allow reports whether one more message at that time keeps to the rate.
func (b *limiter) allow(now time.Time) bool {
	if !b.at.IsZero() {
		b.tokens = min(maxBurst, b.tokens+now.Sub(b.at).Seconds()*maxRate)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
