package host

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/agent"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire"
)

// agents are the test's Shadows: each is the agent that a shadow's guest would
// run, in this process, behind a real socket.
type agents struct {
	dir string

	mu      sync.Mutex
	running map[gnomon.VMID]*inProcess
	started int
	ended   func(gnomon.VMID)
	behave  func(net.Conn) // instead of the real agent
	listens func()         // called when a shadow's socket is there, before its start is done
}

type inProcess struct {
	net.Listener
	hypervisor.Machine
}

func (a *agents) Socket(name string) string { return filepath.Join(a.dir, name+".sock") }

func (a *agents) Start(_ context.Context, spec shadow.Spec) (shadow.Machine, error) {
	a.mu.Lock()
	a.started++
	id := gnomon.VMID(fmt.Sprintf("shadow-%d", a.started))
	behave, listens := a.behave, a.listens
	a.mu.Unlock()
	l, err := net.Listen("unix", a.Socket(spec.Name))
	if err != nil {
		return shadow.Machine{}, err
	}
	s := &inProcess{l, hypervisor.Machine{ID: id, Name: spec.Name, ShadowOf: spec.For, Account: spec.Account}}
	s.Original.Limits = gnomon.Limits{spec.Size.CPU, spec.Size.Memory}
	a.mu.Lock()
	a.running[id] = s
	a.mu.Unlock()
	if behave == nil {
		behave = runAgent
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			behave(c)
		}
	}()
	if listens != nil {
		listens()
	}
	return shadow.Machine{Name: spec.Name, ID: id, Socket: a.Socket(spec.Name), Size: spec.Size}, nil
}

func runAgent(c net.Conn) {
	nonce := uint64(0)
	_ = agent.New(agent.Options{
		Version: "test", Log: slog.New(slog.DiscardHandler),
		Nonce:     func() uint64 { nonce++; return nonce },
		Cost:      func() (int64, time.Duration) { return 1, 1 },
		SaveEvery: 500 * time.Millisecond,
	}).Run(wire.NewConn(c))
}

func (a *agents) Machines(context.Context) ([]hypervisor.Machine, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []hypervisor.Machine
	for _, s := range a.running {
		out = append(out, s.Machine)
	}
	return out, nil
}

func (a *agents) Watch(_ context.Context, ended func(gnomon.VMID)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = ended
	return nil
}

func (a *agents) Stop(_ context.Context, m shadow.Machine) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.running[m.ID]; s != nil {
		delete(a.running, m.ID)
		s.Close()
	}
	return nil
}

// kill ends a shadow as if it had died.
func (a *agents) kill(id gnomon.VMID) {
	_ = a.Stop(context.Background(), shadow.Machine{ID: id})
	a.mu.Lock()
	ended := a.ended
	a.mu.Unlock()
	ended(id)
}

func (a *agents) change(m shadow.Machine, f func(*hypervisor.Machine)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.running[m.ID]
	if s == nil {
		return hypervisor.ErrGone
	}
	f(&s.Machine)
	return nil
}

func (a *agents) Suspend(_ context.Context, m shadow.Machine) error {
	return a.change(m, func(m *hypervisor.Machine) { m.Paused = true })
}

func (a *agents) Resume(_ context.Context, m shadow.Machine) error {
	return a.change(m, func(m *hypervisor.Machine) { m.Paused = false })
}

func (a *agents) Associate(_ context.Context, m shadow.Machine, vm gnomon.VMID, account string) error {
	return a.change(m, func(m *hypervisor.Machine) { m.ShadowOf, m.Account = vm, account })
}

func (a *agents) Resize(_ context.Context, m shadow.Machine, size config.Size) (config.Size, error) {
	return size, a.change(m, func(m *hypervisor.Machine) { m.Original.Limits = gnomon.Limits{size.CPU, size.Memory} })
}

func (a *agents) Cost(shadow.Machine) (int64, time.Duration, error) { return 1 << 20, time.Second, nil }

func (a *agents) count() (running, started int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.running), a.started
}
