package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/plan"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// pace lets one thing a second pass, and saysBurst at once.
type pace struct {
	used float64 // of the burst
	at   time.Time
}

func (p *pace) allow(now time.Time) bool {
	p.used = max(p.used-max(now.Sub(p.at).Seconds(), 0), 0)
	p.at = now
	if p.used > saysBurst-1 {
		return false
	}
	p.used++
	return true
}

// pushed is a usage event that was sent to an agent.
type pushed struct {
	seq  uint64
	at   time.Time // of its sample
	sent time.Time
}

const (
	// keptPushed is how far an agent's proposal may lag behind the events.
	keptPushed = 32

	historyTimeout = 5 * time.Second

	// maxHistoryRequests is how many agents of a host are answered at a time.
	maxHistoryRequests = 4

	// An agent may have one line a second logged for long, and saysBurst at once.
	saysBurst = 10
)

// connect opens the channel to a shadow's agent and keeps it for as long as
// the shadow runs.
func (d *Daemon) connect(s *shadowVM) {
	s.link = nil
	d.session++
	session := d.session
	s.session = session
	if s.giveUp != nil {
		s.giveUp()
	}
	ctx, cancel := context.WithCancel(d.ctx)
	s.giveUp = cancel
	socket := s.socket
	go func() {
		link, err := shadow.Dial(ctx, socket, d.opt.Log.With("shadow", s.name))
		if err != nil {
			d.post(func() { d.linkLost(s, session, err) })
			return
		}
		d.post(func() {
			if s.session != session || s.suspended || d.stopping || d.shadows[s.name] != s {
				link.Close()
				return
			}
			s.link = link
			d.welcome(s)
		})
		for m := range link.Messages() {
			d.post(func() { d.heard(s, session, m) })
		}
		d.post(func() { d.linkLost(s, session, link.Err()) })
	}()
}

// welcome answers an agent's hello, or gives a warm one its VM.
func (d *Daemon) welcome(s *shadowVM) {
	v := d.vms[s.vm]
	if v == nil {
		p := d.desired.parameters(s.account, "", "")
		s.link.Welcome(&agentpb.Welcome{Session: s.session, NowUnixNano: d.now.UnixNano(), Settings: shadow.SettingsOf(p)})
		d.report()
		return
	}
	v.shadow = s
	d.attach(s)
}

// attach begins the session of a shadow's agent for its VM. What an earlier
// session reserved is void.
func (d *Daemon) attach(s *shadowVM) {
	v := d.vms[s.vm]
	if v == nil || s.link == nil {
		return
	}
	s.attached, s.heardSeq, s.memory.parts = true, 0, wire.StateParts{}
	s.link.Welcome(&agentpb.Welcome{
		Session: s.session, Vm: string(s.vm), NowUnixNano: d.now.UnixNano(),
		Settings: shadow.SettingsOf(v.params), KeepsState: true,
	})
	d.step(gnomon.Event{Attached: &gnomon.Attached{VM: s.vm, Session: s.session}})
	d.resizeShadows()
	d.log.Info("agent attached", "shadow", s.name, "vm", v.machine.Name)
}

// detach ends the agent's session; its reservations die with it.
func (d *Daemon) detach(s *shadowVM) {
	if !s.attached {
		return
	}
	s.attached = false
	d.step(gnomon.Event{Detached: &gnomon.Detached{VM: s.vm, Session: s.session}})
}

// linkLost handles the end of a channel: the connection is made again if the
// shadow still runs; if the agent broke the rules, the shadow is replaced.
func (d *Daemon) linkLost(s *shadowVM, session uint64, err error) {
	if s.session != session || d.stopping {
		return
	}
	d.detach(s)
	s.link = nil
	if s.suspended || d.shadows[s.name] != s {
		return
	}
	if shadow.IsViolation(err) {
		d.metrics.agentErrors.WithLabelValues("violation").Inc()
		d.log.Error("agent broke the protocol; its shadow is replaced", "shadow", s.name, "err", err)
		v := d.vms[s.vm]
		d.endShadow(s)
		if v != nil {
			v.restarts++
		}
		d.shadowFailed(s)
		return
	}
	d.metrics.agentErrors.WithLabelValues("lost").Inc()
	d.log.Warn("agent lost", "shadow", s.name, "err", err)
	time.AfterFunc(shadowRetry, func() {
		d.post(func() {
			if s.session == session && s.link == nil && !s.suspended && d.shadows[s.name] == s && !d.stopping {
				d.connect(s)
			}
		})
	})
	d.reconcile()
}

// heard handles one message of an agent. It has been checked for form; here it
// is checked for sense.
func (d *Daemon) heard(s *shadowVM, session uint64, m *agentpb.ToHost) {
	if s.session != session || s.link == nil {
		return
	}
	switch m := m.GetMessage().(type) {
	case *agentpb.ToHost_Proposal:
		d.proposed(s, m.Proposal)
	case *agentpb.ToHost_History:
		d.answerHistory(s, m.History)
	case *agentpb.ToHost_Log:
		if !s.says.allow(d.now) {
			return
		}
		d.log.Log(d.ctx, max(slog.Level(m.Log.GetLevel()), slog.LevelDebug), "agent says", "shadow", s.name, "text", m.Log.GetText())
	case *agentpb.ToHost_State:
		d.keepState(s, m.State)
	case *agentpb.ToHost_StateRequest:
		d.recallState(s, m.StateRequest)
	case *agentpb.ToHost_Pong:
		s.heap = m.Pong.GetHeapBytes()
	}
}

// proposed hands an agent's forecasts and requests to the broker.
func (d *Daemon) proposed(s *shadowVM, m *agentpb.Proposal) {
	v := d.vms[s.vm]
	if v == nil || !s.attached {
		return
	}
	if m.GetSeq() <= s.heardSeq {
		return // the broker takes none that is not newer
	}
	var origin pushed
	for _, p := range s.pushed.values {
		if p.seq == m.GetSeq() {
			origin = p
		}
	}
	if origin.seq == 0 {
		d.log.Debug("proposal for no known event", "shadow", s.name, "seq", m.GetSeq())
		return
	}
	d.metrics.answerSeconds.Observe(d.now.Sub(origin.sent).Seconds())
	p, err := wire.ProposalFrom(s.vm, s.session, origin.at, m)
	if err != nil {
		return // the link has checked it: cannot be
	}
	first := s.heardSeq == 0
	s.heardSeq = p.Seq
	if first {
		d.resizeShadows()
	}
	for _, w := range p.Wants {
		v.wants[w.Resource] = w
		d.write(history.FromWant(v.labels(d.opt.Name), p.At, w)...)
	}
	d.step(gnomon.Event{Proposed: &p})
}

// push sends a sample to the VM's shadow.
func (d *Daemon) push(v *vm, sample gnomon.Sample) {
	s := v.shadow
	if s.link == nil || !s.attached {
		return
	}
	d.seq++
	s.pushed.add(pushed{seq: d.seq, at: sample.At, sent: d.now})
	s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{
		Usage: wire.UsageTo(wire.Usage{Seq: d.seq, Sample: sample, Ceiling: v.bounds.ceiling}),
	}})
}

// answer sends the broker's answer to the agent that asked. Answers to the API
// are picked up where the request was made.
func (d *Daemon) answer(a gnomon.Answer) {
	v := d.vms[a.VM]
	if v == nil || a.Session == gnomon.APISession {
		return
	}
	if s := v.shadow; s != nil && s.link != nil && s.session == a.Session {
		s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Answer{Answer: wire.AnswerTo(a)}})
	}
}

// settings tells an agent of changed parameters.
func (s *shadowVM) settings(p config.Parameters) {
	if s.link != nil {
		s.link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Settings{Settings: shadow.SettingsOf(p)}})
	}
}

// answerHistory reads the VM's own history for its agent, and no other's.
func (d *Daemon) answerHistory(s *shadowVM, req *agentpb.HistoryRequest) {
	link, vm := s.link, s.vm
	r, err := wire.ResourceFrom(req.GetResource())
	if err != nil || vm == "" {
		return
	}
	if s.asking || d.asking >= maxHistoryRequests {
		link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: &agentpb.History{
			Id: req.GetId(), Resource: req.GetResource(), StepNs: req.GetStepNs(), Error: "busy: ask again later",
		}}})
		return
	}
	s.asking = true
	d.asking++
	end, name := d.now, s.name
	go func() {
		defer d.post(func() {
			s.asking = false
			d.asking--
		})
		ctx, cancel := context.WithTimeout(d.ctx, historyTimeout)
		defer cancel()
		res := &agentpb.History{Id: req.GetId(), Resource: req.GetResource(), StepNs: req.GetStepNs()}
		if d.opt.History == nil {
			res.Error = "this host keeps no history"
		} else {
			span, step := time.Duration(req.GetRangeNs()), time.Duration(req.GetStepNs())
			values, start, err := history.DemandOf(ctx, d.opt.History, vm, r, end, span, step)
			if err != nil {
				res.Error = "the history cannot be read"
				d.log.Warn("history not read", "shadow", name, "err", err)
			}
			res.Demand = values
			if !start.IsZero() {
				res.StartUnixNano = start.UnixNano()
			}
		}
		link.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: res}})
	}()
}

// resizeShadows scales each shadow with its VM's predicted peak. One whose
// agent has not said hello keeps what it starts with, and one whose agent has
// not answered yet has the most it may.
func (d *Daemon) resizeShadows() {
	for _, s := range d.sortedShadows() {
		if s.link == nil || s.sizing {
			continue
		}
		p, share := d.desired.parameters(s.account, s.vm, ""), 0.0
		if v := d.vms[s.vm]; v != nil {
			p, share = v.params, peakShare(v)
		}
		want := plan.ShadowSize(p.ScalingPolicy, p.ShadowBase, p.ShadowMax, share, s.size)
		if s.attached && s.heardSeq == 0 {
			want = p.ShadowMax // it resumes or trains, and its VM waits for it
		}
		if want != s.size {
			d.resize(s, want)
		}
	}
}

func (d *Daemon) resize(s *shadowVM, want config.Size) {
	s.sizing = true
	d.busy++
	m := s.machine()
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, applyTimeout)
		defer cancel()
		got, err := d.opt.Shadows.Resize(ctx, m, want)
		d.post(func() {
			d.busy--
			s.sizing = false
			if err == nil {
				s.size = got
			}
			if err != nil {
				d.log.Debug("shadow not resized", "shadow", s.name, "err", err)
			}
			d.updateCapacity()
		})
	}()
}

// peakShare is the VM's predicted peak as a share of its ceiling, 0 to 1: the
// largest over its resources.
func peakShare(v *vm) float64 {
	share := 0.0
	for r := range gnomon.AllResources() {
		if c := v.bounds.ceiling[r]; c > 0 && v.bounds.limits.Has(r) {
			share = max(share, float64(v.wants[r].High)/float64(c))
		}
	}
	return min(share, 1)
}
