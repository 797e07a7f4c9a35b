package libvirt

import (
	"errors"
	"time"
)

// errHeld tells that libvirt has not finished an earlier call for the VM.
var errHeld = errors.New("libvirt is still busy with an earlier call for this VM: a migration, a backup or another change holds it, or QEMU does not answer")

// grace is how long after it was given up a call may take without the domain
// counting as held: most are only a little late.
const grace = 200 * time.Millisecond

// held reports whether a call that was given up has not returned.
func (l *live) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.late > 0
}

// await has the domain held until a call that was given up returns or its
// connection is lost. What it changed then is not known.
func (l *live) await(returned, lost <-chan struct{}) {
	defer func() {
		l.quota.forget()
		l.throttle.forget()
	}()
	select {
	case <-returned:
		return
	case <-lost:
		return
	case <-time.After(grace):
	}
	l.setLate(1)
	defer l.setLate(-1)
	select {
	case <-returned:
	case <-lost:
	}
}

func (l *live) setLate(by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late += by
}
