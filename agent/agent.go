// Package agent is the loop of a shadow VM: it says hello, learns whose shadow
// it is, goes on where the VM's last agent was or trains from its history, and
// answers every usage event that is pushed to it with forecasts and, where they
// ask for it, requests.
//
// The agent never polls and never waits for an answer. It reads no clock: time
// is a field of the events. Between events it is parked in a read.
package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/plan"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// trainingSamples is how many samples of history a model is trained from.
const trainingSamples = 1000

// Options are what an Agent needs of its surroundings.
type Options struct {
	Version string
	Kernel  string

	// Log is the guest's own console.
	Log *slog.Logger

	// Nonce returns a number that differs with each call.
	Nonce func() uint64

	// Cost returns the agent's heap in bytes and the CPU time it has used.
	Cost func() (heap int64, cpu time.Duration)

	// SaveEvery is the time of the events between two states that are sent to
	// the host; 0 means a minute.
	SaveEvery time.Duration
}

// Agent is one shadow's state. What it learned of its VM outlives a
// connection. It is not safe for concurrent use.
type Agent struct {
	opts Options
	conn *wire.Conn

	nonce   uint64 // of the Hello that a Welcome is awaited for
	welcome bool   // whether it came
	vm      gnomon.VMID
	planner *plan.Planner // nil while there is no VM
	inForce plan.Settings // the planner's
	asked   map[uint64]gnomon.Resource
	request uint64 // the newest id in asked
	memory  memory
	report  reporter
}

// New returns an agent that has met no host yet.
func New(opts Options) *Agent {
	if opts.SaveEvery == 0 {
		opts.SaveEvery = saveEvery
	}
	return &Agent{opts: opts}
}

// Run speaks with one host until the connection ends, and returns why it did.
// It begins with a Hello: on a virtio port, writing parks the caller until a
// host is attached, where a read would return at once. Call Run again when the
// host went away; the models are kept.
func (a *Agent) Run(conn *wire.Conn) error {
	a.conn = conn
	if err := a.hello(); err != nil {
		return err
	}
	for {
		m, err := conn.ReadToAgent()
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrTooLarge) {
			a.opts.Log.Warn("host's message ignored", "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("read from host: %w", err)
		}
		if err := a.handle(m); err != nil {
			return err
		}
	}
}

// hello opens a session, or opens it again. While a Welcome is awaited it keeps
// to its nonce: several knocks are answered by several hellos, any of which the
// Welcome may be for.
func (a *Agent) hello() error {
	if a.welcome || a.nonce == 0 {
		a.nonce, a.welcome = a.opts.Nonce(), false
	}
	return a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{
		Nonce: a.nonce, Version: a.opts.Version, Kernel: a.opts.Kernel,
	}}})
}

// handle acts on one message. Its error is one of writing.
func (a *Agent) handle(m *agentpb.ToAgent) error {
	switch m := m.GetMessage().(type) {
	case *agentpb.ToAgent_Knock:
		return a.hello()
	case *agentpb.ToAgent_Welcome:
		return a.welcomed(m.Welcome)
	case *agentpb.ToAgent_Ping:
		heap, cpu := a.opts.Cost()
		return a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Pong{Pong: &agentpb.Pong{
			Id: m.Ping.GetId(), HeapBytes: heap, CpuNs: int64(cpu),
		}}})
	}
	if !a.welcome {
		return nil // meant for an earlier session
	}
	switch m := m.GetMessage().(type) {
	case *agentpb.ToAgent_Settings:
		a.configure(m.Settings)
	case *agentpb.ToAgent_History:
		a.train(m.History)
	case *agentpb.ToAgent_State:
		return a.resume(m.State)
	case *agentpb.ToAgent_Usage:
		return a.observe(m.Usage)
	case *agentpb.ToAgent_Answer:
		return a.answered(m.Answer)
	}
	return nil
}

// welcomed opens the session and, for a VM that is not the one of before,
// begins anew with nothing learned.
func (a *Agent) welcomed(w *agentpb.Welcome) error {
	if w.GetNonce() != a.nonce {
		return nil
	}
	settings, err := settingsFrom(w.GetSettings())
	if err != nil {
		a.opts.Log.Error("welcome refused", "err", err)
		return nil
	}
	a.welcome = true
	now := time.Unix(0, w.GetNowUnixNano())
	a.memory.kept = w.GetKeepsState()
	vm := gnomon.VMID(w.GetVm())
	if vm == a.vm && a.planner != nil {
		a.opts.Log.Debug("session resumed", "vm", vm, "session", w.GetSession())
		a.configure(w.GetSettings())
		if a.memory.awaited != 0 { // the answer was lost with the connection
			return a.recall(now)
		}
		return nil
	}
	a.vm, a.planner, a.asked = vm, nil, nil
	a.memory = memory{kept: a.memory.kept}
	if vm == "" {
		// What was learned is garbage. To collect it now costs nobody's answer, the
		// first of a clone least of all.
		runtime.GC()
		a.opts.Log.Debug("waiting for a VM", "session", w.GetSession())
		return nil
	}
	if a.planner, err = plan.New(settings); err != nil {
		a.opts.Log.Error("welcome refused", "err", err)
		return nil
	}
	a.opts.Log.Debug("shadow of", "vm", vm, "session", w.GetSession(),
		"interval", settings.Interval, "horizon", settings.Horizon, "model", settings.Model)
	a.inForce = settings
	return a.recall(now)
}

func settingsFrom(m *agentpb.Settings) (plan.Settings, error) {
	s, err := wire.SettingsFrom(m)
	return plan.Settings{
		Interval: s.MonitoringInterval, Horizon: s.PredictionHorizon, Season: s.Season,
		Model: s.Model, Price: s.Price, Threshold: s.Thresholds,
	}, err
}

// configure puts settings in force; those it cannot use leave the old ones.
func (a *Agent) configure(m *agentpb.Settings) {
	s, err := settingsFrom(m)
	if err == nil && a.planner != nil {
		err = a.planner.Configure(s)
	}
	if err != nil {
		a.opts.Log.Error("settings refused", "err", err)
		return
	}
	a.inForce = s
	a.opts.Log.Debug("settings", "interval", s.Interval, "horizon", s.Horizon, "model", s.Model, "price", s.Price)
}

// askHistory asks for the past of every resource, at the interval that the
// models work in.
func (a *Agent) askHistory() error {
	step := a.inForce.Interval
	a.asked = make(map[uint64]gnomon.Resource, gnomon.NumResources)
	span := min(trainingSamples*step, wire.MaxLookback)
	if span < step {
		return nil
	}
	for r := range gnomon.AllResources() {
		a.request++
		a.asked[a.request] = r
		if err := a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_History{History: &agentpb.HistoryRequest{
			Id: a.request, Resource: wire.ResourceTo(r), RangeNs: int64(span), StepNs: int64(step),
		}}}); err != nil {
			return err
		}
	}
	return nil
}

// train takes in a history that was asked for.
func (a *Agent) train(h *agentpb.History) {
	r, ok := a.asked[h.GetId()]
	if !ok || a.planner == nil {
		return
	}
	delete(a.asked, h.GetId())
	if h.GetError() != "" || len(h.GetDemand()) == 0 {
		a.opts.Log.Debug("no history", "resource", r, "err", h.GetError())
		return
	}
	a.planner.Train(r, h.GetDemand())
	a.opts.Log.Debug("trained", "resource", r, "samples", len(h.GetDemand()))
}

// observe is the loop's body: update, forecast, compare, ask.
func (a *Agent) observe(m *agentpb.Usage) error {
	if a.planner == nil {
		return nil
	}
	u, err := wire.UsageFrom(a.vm, m)
	if err != nil {
		a.opts.Log.Warn("usage ignored", "err", err)
		return nil
	}
	p := a.planner.Observe(plan.Observation{
		Seq: u.Seq, At: u.Sample.At, Urgent: u.Sample.Urgent, Known: u.Sample.Known,
		Usage: u.Sample.Usage, Demand: u.Sample.Demand, Allocation: u.Sample.Allocation, Ceiling: u.Ceiling,
	})
	for i := range p.Wants {
		bound(&p.Wants[i])
	}
	if err := a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: wire.ProposalTo(p)}}); err != nil {
		return err
	}
	a.planner.Refit()
	if err := a.remember(u.Sample.At); err != nil {
		return err
	}
	return a.tell(u.Sample.At, requestText(p))
}

// bound keeps a want within what the wire allows: a forecast may leave it.
func bound(w *gnomon.Want) {
	clamp := func(v, lo int64) int64 { return min(max(v, lo), wire.MaxAmount) }
	w.Low = clamp(w.Low, 0)
	w.Median = clamp(w.Median, w.Low)
	w.High = clamp(w.High, w.Median)
	w.Level = clamp(w.Level, 0)
	w.NeedIn = min(max(w.NeedIn, 0), wire.MaxAhead)
	w.Lifetime = min(max(w.Lifetime, 0), wire.MaxAhead)
}

func (a *Agent) answered(m *agentpb.Answer) error {
	answer, err := wire.AnswerFrom(m)
	if err != nil {
		a.opts.Log.Warn("answer ignored", "err", err)
		return nil
	}
	return a.tell(time.Time{}, answerText(answer))
}
