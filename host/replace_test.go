package host

import (
	"net"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// A shadow's end may be told long after its channel broke. Its
// successor has the same name and socket, and must not be taken for it.
func TestAShadowWhoseEndIsToldLateIsReplacedOnce(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	channels := make(chan net.Conn, 8)
	r.agents.behave = func(c net.Conn) {
		channels <- c
		runAgent(c)
	}
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	var old *shadowVM
	var session uint64
	r.do(func() { old = r.daemon.vms[id].shadow; session = old.session })

	r.agents.mu.Lock()
	r.agents.listens = func() {
		select {
		case <-channels: // somebody connects before the start is done
		case <-time.After(500 * time.Millisecond): // nobody does
		}
	}
	r.agents.running[old.id].Close()
	r.agents.mu.Unlock()
	(<-channels).Close()
	r.eventually("the daemon tries to connect again", func() bool { return old.session != session })
	r.agents.kill(old.id)
	r.eventually("another agent is attached", func() bool {
		s := r.daemon.vms[id].shadow
		return s != nil && s.attached && r.attached(id)()
	})
	r.do(func() {
		s := r.daemon.vms[id].shadow
		if s == old || r.daemon.shadows[s.name] != s {
			t.Error("the VM's shadow is the one that ended")
		}
	})
	if running, started := r.agents.count(); running != 1 || started != 2 {
		t.Errorf("%d shadows run and %d were started, want 1 and 2", running, started)
	}
}

// A shadow that was ended and is still seen is not taken for one to adopt.
func TestAShadowThatIsEndingIsNotAdopted(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	r.do(func() {
		d := r.daemon
		s := d.vms[id].shadow
		seen := hypervisor.Machine{ID: s.id, Name: s.name, ShadowOf: id, Original: hypervisor.Original{}}
		d.endShadow(s)
		d.adoptShadows([]hypervisor.Machine{seen})
		if d.shadows[s.name] != nil {
			t.Error("it was adopted")
		}
	})
}
