package libvirt

import (
	"sync"
	"time"
)

// stale is how old a remembered limit may be: others can change it, but rarely
// do.
const stale = 3 * time.Second

// memo remembers a limit that is dear to ask for.
type memo[T any] struct {
	mu    sync.Mutex
	limit T
	at    time.Time
	epoch uint64 // of the last forget
}

// get returns what is remembered, if it is fresh, and else the epoch to put an
// answer with.
func (m *memo[T]) get() (limit T, epoch uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limit, m.epoch, !m.at.IsZero() && time.Since(m.at) < stale
}

// last returns what is remembered, however old.
func (m *memo[T]) last() (limit T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limit, !m.at.IsZero()
}

// put remembers an answer, unless something changed since it was asked for.
func (m *memo[T]) put(epoch uint64, limit T, asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == m.epoch {
		m.limit, m.at = limit, asked
	}
}

// forget is called before a change and after it, so that no answer from
// meanwhile is kept.
func (m *memo[T]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.at = time.Time{}
}
