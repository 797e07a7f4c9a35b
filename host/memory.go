package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
	"github.com/google/renameio/v2"
)

const (
	// saveGap is the least time between two states that are kept of one agent.
	// What comes between is dropped: an agent cannot keep the disk busy.
	saveGap = 20 * time.Second

	// recallGap is the least time between two states that an agent is given.
	recallGap = time.Second

	// recallFails is how many shadows in a row may not have lived for long before
	// the next one begins anew: it may be the state that they die of.
	recallFails = 1

	// forgetAfter is how long the state of a VM that does not run is kept, should
	// it be started again; sweepEvery how often that is looked at.
	forgetAfter = time.Hour
	sweepEvery  = 10 * time.Minute
)

// agentStates is a folder with what agents learned: the newest state of each VM,
// as it came. An agent writes them, so nothing here looks into one, and each is
// given to agents of its VM only.
type agentStates struct{ dir string }

const (
	statePrefix = "vm-"
	stateSuffix = ".state"
)

// file returns where the state of a VM is. No identifier leads out of the folder.
func (a agentStates) file(vm gnomon.VMID) string {
	return filepath.Join(a.dir, statePrefix+url.PathEscape(string(vm))+stateSuffix)
}

func (a agentStates) keep(vm gnomon.VMID, state []byte) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("keep state of agent: %w", err)
	}
	if err := renameio.WriteFile(a.file(vm), state, 0o600, renameio.WithTempDir(a.dir)); err != nil {
		return fmt.Errorf("keep state of agent: %w", err)
	}
	return nil
}

// recall returns the newest state of a VM, nil if there is none.
func (a agentStates) recall(vm gnomon.VMID) ([]byte, error) {
	f, err := os.Open(a.file(vm))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of agent: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxState+1))
	if err != nil {
		return nil, fmt.Errorf("read state of agent: %w", err)
	}
	return b, nil
}

// sweep removes what was last written before a time, but for VMs that run.
func (a agentStates) sweep(runs map[gnomon.VMID]bool, before time.Time) error {
	entries, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove old states of agents: %w", err)
	}
	var failed error
	for _, e := range entries {
		name, whole := strings.CutSuffix(strings.TrimPrefix(e.Name(), statePrefix), stateSuffix)
		if vm, err := url.PathUnescape(name); err == nil && whole && runs[gnomon.VMID(vm)] {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(before) {
			continue // it is gone, or new
		}
		if err := os.Remove(filepath.Join(a.dir, e.Name())); err != nil {
			failed = fmt.Errorf("remove old states of agents: %w", err)
		}
	}
	return failed
}

// agentMemory is the exchange of states with one shadow's agent.
type agentMemory struct {
	parts    wire.StateParts // of the state that is coming
	saved    time.Time       // when the newest one was kept
	recalled time.Time       // when one was last asked for and given
}

// keepState takes in a part of what a shadow's agent learned of its VM, and
// keeps the whole beside the loop.
func (d *Daemon) keepState(s *shadowVM, part *agentpb.State) {
	if d.vms[s.vm] == nil || !s.attached {
		return
	}
	state, whole := s.memory.parts.Add(part)
	if !whole || d.now.Sub(s.memory.saved) < saveGap {
		return
	}
	s.memory.saved = d.now
	vm := s.vm
	d.busy++
	go func() {
		err := d.states.keep(vm, state)
		d.post(func() {
			d.busy--
			if err != nil {
				d.log.Warn("state of agent not kept", "shadow", s.name, "err", err)
			}
		})
	}()
}

// recallState gives an agent what the last agent of its VM had learned.
func (d *Daemon) recallState(s *shadowVM, req *agentpb.StateRequest) {
	v := d.vms[s.vm]
	if v == nil || !s.attached {
		return
	}
	link, vm, name, none := s.link, s.vm, s.name, d.now.Sub(s.memory.recalled) < recallGap
	s.memory.recalled = d.now
	if v.fails > recallFails {
		d.log.Warn("agent begins anew, should it be their state that shadows fail of", "shadow", name, "failed", v.fails)
		none = true
	}
	go func() {
		var state []byte
		var err error
		if !none {
			state, err = d.states.recall(vm)
		}
		parts, tooLarge := wire.StateTo(req.GetId(), state)
		if err = errors.Join(err, tooLarge); err != nil {
			d.log.Warn("no state for agent", "shadow", name, "err", err)
			parts = []*agentpb.State{{Id: req.GetId()}} // there is none
		}
		for _, p := range parts {
			link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_State{State: p}})
		}
	}()
}

// sweepStates removes, now and then, the states of VMs that have not run for
// long.
func (d *Daemon) sweepStates() {
	if d.now.Sub(d.swept) < sweepEvery {
		return
	}
	d.swept = d.now
	runs := make(map[gnomon.VMID]bool, len(d.vms))
	for id := range d.vms {
		runs[id] = true
	}
	before := d.now.Add(-forgetAfter)
	go func() {
		if err := d.states.sweep(runs, before); err != nil {
			d.log.Warn("old states of agents not removed", "err", err)
		}
	}()
}
