package libvirt

import (
	"sync"
	"time"
)

// stale is how old a remembered limit may be: others can change it, but rarely
// do.
const stale = 10 * time.Second

// memo remembers a limit that is dear to ask for.
type memo struct {
	mu     sync.Mutex
	amount int64
	at     time.Time
	epoch  uint64 // of the last forget
}

// get returns what is remembered, if it is fresh, and else the epoch to put an
// answer with.
func (m *memo) get() (amount int64, epoch uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.amount, m.epoch, !m.at.IsZero() && time.Since(m.at) < stale
}

// last returns what is remembered, however old.
func (m *memo) last() (amount int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.amount, !m.at.IsZero()
}

// put remembers an answer, unless something changed since it was asked for.
func (m *memo) put(epoch uint64, amount int64, asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == m.epoch {
		m.amount, m.at = amount, asked
	}
}

// forget is called before a change and after it, so that no answer from
// meanwhile is kept.
func (m *memo) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.at = time.Time{}
}
