package agent

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/plan"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

const (
	// saveEvery is how often the host is sent what was learned. A shadow has no
	// disk, and is not told when it ends.
	saveEvery = time.Minute

	// A state is old if it ends longer ago than oldIntervals and oldAge: what
	// the history knows of the time since is then worth more than the scores.
	oldIntervals = 120
	oldAge       = 5 * time.Minute
)

// memory is the exchange of states with the host.
type memory struct {
	kept    bool      // whether the host keeps any
	saved   time.Time // when the newest was sent, zero before the first event
	count   uint64    // of states sent
	request uint64    // id of the newest request
	awaited uint64    // id of the request that is not answered yet, or 0
	now     time.Time // when it was made
	parts   wire.StateParts
}

// recall asks for what the VM's last agent learned or, where no states are
// kept, for the history.
func (a *Agent) recall(now time.Time) error {
	m := &a.memory
	if !m.kept {
		m.awaited = 0
		return a.askHistory()
	}
	m.request++
	m.awaited, m.now, m.parts = m.request, now, wire.StateParts{}
	return a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_StateRequest{
		StateRequest: &agentpb.StateRequest{Id: m.awaited},
	}})
}

// resume takes in a part of the state that was asked for. The agent goes on from
// it once it is whole. If there is none, or it cannot be used, the agent trains
// from the history; if it is old, from that too where there is one.
func (a *Agent) resume(part *agentpb.State) error {
	m := &a.memory
	if a.planner == nil || m.awaited == 0 || part.GetId() != m.awaited {
		return nil
	}
	state, whole := m.parts.Add(part)
	if !whole && part.GetPart()+1 < part.GetParts() {
		return nil
	}
	m.awaited = 0
	if !whole {
		a.opts.Log.Debug("no state")
		return a.askHistory()
	}
	p, err := plan.Load(a.inForce, state)
	if err != nil {
		a.opts.Log.Warn("state refused", "err", err)
		return a.askHistory()
	}
	a.planner = p
	age := m.now.Sub(p.Last()).Round(time.Second)
	text := fmt.Sprintf("resumed with %d samples, %v after the newest", p.Samples(), age)
	a.opts.Log.Debug(text)
	if err := a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Log{Log: &agentpb.Log{
		Level: int32(slog.LevelInfo), Text: text,
	}}}); err != nil {
		return err
	}
	if age > max(oldAge, oldIntervals*a.inForce.Interval) {
		return a.askHistory()
	}
	return nil
}

func hash(vm gnomon.VMID) uint64 {
	h := fnv.New64a()
	h.Write([]byte(vm))
	return h.Sum64()
}

// remember sends what was learned to the host if that is due at the time of an
// event.
func (a *Agent) remember(at time.Time) error {
	m := &a.memory
	if !m.kept || m.awaited != 0 {
		return nil
	}
	if m.saved.IsZero() || at.Before(m.saved) {
		// Agents that begin together do not send together.
		m.saved = at.Add(-time.Duration(hash(a.vm) % uint64(a.opts.SaveEvery)))
	}
	if at.Sub(m.saved) < a.opts.SaveEvery {
		return nil
	}
	m.saved = at
	m.count++
	parts, err := wire.StateTo(m.count, a.planner.Save())
	if err != nil {
		a.opts.Log.Warn("state not sent", "err", err)
		return nil
	}
	for _, p := range parts {
		if err := a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: p}}); err != nil {
			return err
		}
	}
	return nil
}
