package wire

import (
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// The bounds of what an agent may send.
const (
	MaxAmount   = int64(1) << 50       // of any resource, in its unit
	MaxAhead    = 24 * time.Hour       // for NeedIn and Lifetime
	MaxWants    = 8                    // in one proposal
	MaxLog      = 1 << 10              // bytes of log text
	MaxName     = 128                  // bytes of any name or version
	MaxPoints   = 7200                 // of one history request, so that it fits a frame
	MaxLookback = 400 * 24 * time.Hour // of one history request
)

// Check reports whether an agent's message keeps to the bounds. The error wraps
// ErrMalformed and tells which part does not.
func Check(m *agentpb.ToHost) error {
	var err error
	switch m := m.GetMessage().(type) {
	case *agentpb.ToHost_Hello:
		err = checkHello(m.Hello)
	case *agentpb.ToHost_Proposal:
		err = checkProposal(m.Proposal)
	case *agentpb.ToHost_History:
		err = checkHistoryRequest(m.History)
	case *agentpb.ToHost_Log:
		err = checkName("log text", m.Log.GetText(), MaxLog)
	case *agentpb.ToHost_Pong:
		if m.Pong.GetHeapBytes() < 0 || m.Pong.GetCpuNs() < 0 {
			err = fmt.Errorf("pong: negative figures")
		}
	case *agentpb.ToHost_State:
		err = checkState(m.State)
	case *agentpb.ToHost_StateRequest:
	default:
		err = fmt.Errorf("unknown kind of message")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

func checkName(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s of %d bytes: at most %d", what, len(s), limit)
	}
	return nil
}

func checkHello(h *agentpb.Hello) error {
	if err := checkName("hello: version", h.GetVersion(), MaxName); err != nil {
		return err
	}
	return checkName("hello: kernel", h.GetKernel(), MaxName)
}

func checkProposal(p *agentpb.Proposal) error {
	if len(p.GetWants()) > MaxWants {
		return fmt.Errorf("proposal: %d wants, at most %d", len(p.GetWants()), MaxWants)
	}
	var seen gnomon.ResourceSet
	for _, w := range p.GetWants() {
		r, err := ResourceFrom(w.GetResource())
		if err != nil {
			return fmt.Errorf("proposal: %w", err)
		}
		if seen.Has(r) {
			return fmt.Errorf("proposal: %v twice", r)
		}
		seen = seen.With(r)
		if err := checkWant(w); err != nil {
			return fmt.Errorf("proposal: %v: %w", r, err)
		}
	}
	return nil
}

func checkWant(w *agentpb.Want) error {
	for _, a := range []struct {
		name  string
		value int64
	}{{"low", w.GetLow()}, {"median", w.GetMedian()}, {"high", w.GetHigh()}, {"level", w.GetLevel()}, {"enough", w.GetEnough()}} {
		if a.value < 0 || a.value > MaxAmount {
			return fmt.Errorf("%s of %d: want 0 to %d", a.name, a.value, MaxAmount)
		}
	}
	if w.GetLow() > w.GetMedian() || w.GetMedian() > w.GetHigh() {
		return fmt.Errorf("quantiles %d, %d, %d: want them in order", w.GetLow(), w.GetMedian(), w.GetHigh())
	}
	for _, d := range []struct {
		name  string
		value int64
	}{{"need_in", w.GetNeedInNs()}, {"lifetime", w.GetLifetimeNs()}} {
		if d.value < 0 || d.value > int64(MaxAhead) {
			return fmt.Errorf("%s of %v: want 0 to %v", d.name, time.Duration(d.value), MaxAhead)
		}
	}
	return checkName("model", w.GetModel(), MaxName)
}

func checkHistoryRequest(h *agentpb.HistoryRequest) error {
	if _, err := ResourceFrom(h.GetResource()); err != nil {
		return fmt.Errorf("history request: %w", err)
	}
	if h.GetRangeNs() <= 0 || h.GetRangeNs() > int64(MaxLookback) {
		return fmt.Errorf("history request: range of %v: want up to %v", time.Duration(h.GetRangeNs()), MaxLookback)
	}
	if h.GetStepNs() <= 0 || h.GetRangeNs()/h.GetStepNs() > MaxPoints {
		return fmt.Errorf("history request: step of %v over %v: want at most %d points",
			time.Duration(h.GetStepNs()), time.Duration(h.GetRangeNs()), MaxPoints)
	}
	return nil
}
