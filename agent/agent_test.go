package agent

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// host is the far end of an agent's channel, played by the test.
type host struct {
	t *testing.T
	*wire.Conn
	raw   net.Conn
	heard chan *agentpb.ToHost // closed at the end
	done  chan error           // what Run returned
}

func newAgent(t *testing.T) *Agent {
	nonce := uint64(0)
	return New(Options{
		Version: "v1", Kernel: "k1", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Nonce: func() uint64 { nonce++; return nonce },
		Cost:  func() (int64, time.Duration) { return 1000, 2 * time.Second },
	})
}

// attach runs the agent on a new connection.
func attach(t *testing.T, a *Agent) *host {
	t.Helper()
	near, far := net.Pipe()
	h := &host{t: t, Conn: wire.NewConn(near), raw: near, heard: make(chan *agentpb.ToHost, 64), done: make(chan error, 1)}
	go func() { h.done <- a.Run(wire.NewConn(far)) }()
	go func() {
		defer close(h.heard)
		for {
			// It checks that the host's rules are kept.
			m, err := h.ReadToHost()
			if err != nil {
				return
			}
			h.heard <- m
		}
	}()
	t.Cleanup(func() { near.Close() })
	return h
}

// hear returns the agent's next message.
func (h *host) hear() *agentpb.ToHost {
	h.t.Helper()
	select {
	case m, ok := <-h.heard:
		if !ok {
			h.t.Fatal("the agent broke the rules or left")
		}
		return m
	case <-time.After(10 * time.Second):
		h.t.Fatal("the agent says nothing")
	}
	return nil
}

func (h *host) say(m *agentpb.ToAgent) {
	h.t.Helper()
	if err := h.WriteToAgent(m); err != nil {
		h.t.Fatal(err)
	}
}

// probe returns what the agent says before it answers a ping.
func (h *host) probe() (said []*agentpb.ToHost) {
	h.t.Helper()
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: 77}}})
	for {
		m := h.hear()
		if p := m.GetPong(); p != nil {
			if p.GetId() != 77 || p.GetHeapBytes() != 1000 || p.GetCpuNs() != 2e9 {
				h.t.Errorf("pong is %v", p)
			}
			return said
		}
		said = append(said, m)
	}
}

func settings(threshold int64) *agentpb.Settings {
	return wire.SettingsTo(wire.Settings{
		MonitoringInterval: time.Second, PredictionHorizon: 5 * time.Second,
		Thresholds: gnomon.Resources{threshold, 1, 1, 1}, Model: "holt", Price: 100,
	})
}

func welcome(nonce uint64, vm string) *agentpb.ToAgent {
	return &agentpb.ToAgent{Message: &agentpb.ToAgent_Welcome{Welcome: &agentpb.Welcome{
		Nonce: nonce, Session: 5, Vm: vm, NowUnixNano: 42, Settings: settings(50),
	}}}
}

func usage(seq uint64, cpu int64) *agentpb.ToAgent {
	return &agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{
		Seq: seq, Ceiling: gnomon.Resources{1 << 40},
		Sample: gnomon.Sample{
			At: time.Unix(1000+int64(seq), 0), Interval: time.Second, Known: gnomon.SetOf(gnomon.CPU),
			Usage: gnomon.Resources{cpu}, Demand: gnomon.Resources{cpu}, Allocation: gnomon.Resources{cpu},
		},
	})}}
}

// meet goes through hello and welcome and answers the history requests with
// the given error or demand.
func meet(h *host, nonce uint64, vm string, demand []float64) {
	h.t.Helper()
	if got := h.hear().GetHello(); got.GetNonce() != nonce || got.GetVersion() != "v1" || got.GetKernel() != "k1" {
		h.t.Fatalf("hello is %v, want nonce %d", got, nonce)
	}
	h.say(welcome(nonce, vm))
	for i := range gnomon.NumResources {
		req := h.hear().GetHistory()
		if req.GetResource() != agentpb.Resource(i+1) || req.GetStepNs() != 1e9 || req.GetRangeNs() != 1000e9 {
			h.t.Fatalf("history request is %v", req)
		}
		res := &agentpb.History{Id: req.GetId(), Resource: req.GetResource(), StepNs: req.GetStepNs()}
		if i == 0 && demand != nil {
			res.Demand = demand
		} else {
			res.Error = "none"
		}
		h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: res}})
	}
}

func proposal(t *testing.T, m *agentpb.ToHost, seq uint64) *agentpb.Want {
	t.Helper()
	p := m.GetProposal()
	if p.GetSeq() != seq || len(p.GetWants()) != 1 || p.GetWants()[0].GetResource() != agentpb.Resource_RESOURCE_CPU {
		t.Fatalf("got %v, want a proposal for event %d", m, seq)
	}
	return p.GetWants()[0]
}

func TestLoop(t *testing.T) {
	h := attach(t, newAgent(t))
	past := make([]float64, 100)
	for i := range past {
		past[i] = float64(1000 + 100*i)
	}
	past[50] = math.NaN()
	meet(h, 1, "vm-a", past)
	// Trained on a rising demand, it asks at the first event, and tells of it.
	h.say(usage(1, 11000))
	w := proposal(t, h.hear(), 1)
	if w.GetLevel() <= 11000 || w.GetHigh() <= 11050 || w.GetLifetimeNs() <= 0 {
		t.Errorf("after a steady rise to 11000 it wants %v", w)
	}
	if text := h.hear().GetLog().GetText(); !strings.Contains(text, "request 1: cpu=") {
		t.Errorf("log is %q", text)
	}
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Answer{Answer: &agentpb.Answer{Seq: 1, Grants: []*agentpb.Grant{
		{Resource: 1, Asked: w.GetLevel(), Got: 5, Verdict: "partial", Reason: "little is free"},
	}}}})
	if text := h.hear().GetLog().GetText(); !strings.Contains(text, "answer 1: cpu=partial(5 of") || !strings.Contains(text, "little is free") {
		t.Errorf("log is %q", text)
	}
	// Within ten seconds nothing more is told.
	h.say(usage(2, 11100))
	proposal(t, h.hear(), 2)
	if said := h.probe(); len(said) != 0 {
		t.Errorf("it also said %v", said)
	}
}

func TestThresholdChangesAtRunTime(t *testing.T) {
	h := attach(t, newAgent(t))
	meet(h, 1, "vm-a", nil)
	asked := func(seq uint64) bool {
		h.say(usage(seq, 1000+int64(seq)*100))
		w := proposal(t, h.hear(), seq)
		h.probe()
		return w.GetLevel() > 0
	}
	requests := 0
	for seq := range uint64(20) {
		if asked(seq + 1) {
			requests++
		}
	}
	if requests < 10 {
		t.Errorf("%d requests in 20 events of a steady rise", requests)
	}
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Settings{Settings: settings(1 << 30)}})
	if asked(21) {
		t.Error("a huge threshold is not heeded")
	}
	// Settings it cannot use change nothing.
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Settings{Settings: &agentpb.Settings{}}})
	if asked(22) {
		t.Error("bad settings were put in force")
	}
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Settings{Settings: settings(50)}})
	if !asked(23) {
		t.Error("a lower threshold is not heeded")
	}
}

func TestModelsOutliveTheHost(t *testing.T) {
	a := newAgent(t)
	h := attach(t, a)
	meet(h, 1, "vm-a", []float64{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000})
	h.raw.Close()
	if err := <-h.done; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("the host went away: Run returned %v", err)
	}

	h = attach(t, a)
	if nonce := h.hear().GetHello().GetNonce(); nonce != 2 {
		t.Fatalf("second hello has nonce %d", nonce)
	}
	// A welcome to an earlier hello, and what was meant for the earlier session.
	h.say(welcome(1, "vm-b"))
	h.say(usage(1, 5000))
	if said := h.probe(); len(said) != 0 {
		t.Errorf("before the welcome it said %v", said)
	}
	h.say(welcome(2, "vm-a"))
	h.say(usage(2, 1000))
	if w := proposal(t, h.hear(), 2); w.GetMedian() < 900 || w.GetMedian() > 1100 {
		t.Errorf("it forecasts %v", w)
	}
	if said := h.probe(); len(said) != 0 {
		t.Errorf("it said %v", said)
	}
}

func TestKnockAndNewVM(t *testing.T) {
	h := attach(t, newAgent(t))
	if h.hear().GetHello() == nil {
		t.Fatal("no hello")
	}
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Knock{Knock: &agentpb.Knock{}}})
	if nonce := h.hear().GetHello().GetNonce(); nonce != 1 {
		t.Fatalf("the knock is answered with nonce %d", nonce)
	}
	// Warm: no VM, nothing asked, usage ignored.
	h.say(welcome(1, ""))
	h.say(usage(1, 5000))
	if said := h.probe(); len(said) != 0 {
		t.Errorf("while warm it said %v", said)
	}
	// Each VM it gets is a new one to it.
	for _, vm := range []string{"vm-a", "vm-b"} {
		h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_Knock{Knock: &agentpb.Knock{}}})
		meet(h, map[string]uint64{"vm-a": 2, "vm-b": 3}[vm], vm, nil)
	}
}

func TestBadMessagesAreSurvived(t *testing.T) {
	h := attach(t, newAgent(t))
	meet(h, 1, "vm-a", nil)
	for _, b := range [][]byte{nil, []byte("\xff\xff\xff"), {0xfa, 0x7f, 0}} {
		if err := h.WriteFrame(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []*agentpb.ToAgent{
		{},
		{Message: &agentpb.ToAgent_Usage{Usage: &agentpb.Usage{Resources: []*agentpb.ResourceUsage{{Resource: 99}}}}},
		{Message: &agentpb.ToAgent_Answer{Answer: &agentpb.Answer{Grants: []*agentpb.Grant{{Resource: 99}}}}},
		{Message: &agentpb.ToAgent_History{History: &agentpb.History{Id: 12345}}},
		{Message: &agentpb.ToAgent_Welcome{Welcome: &agentpb.Welcome{Nonce: 1, Vm: "x"}}},
	} {
		h.say(m)
	}
	if said := h.probe(); len(said) != 0 {
		t.Errorf("it said %v", said)
	}
	h.say(usage(1, 5000))
	proposal(t, h.hear(), 1)
}

func TestHugeAmountsStayWithinTheRules(t *testing.T) {
	h := attach(t, newAgent(t))
	meet(h, 1, "vm-a", nil)
	for i, cpu := range []int64{math.MaxInt64, 0, math.MinInt64, math.MaxInt64, -1, math.MaxInt64 / 2} {
		h.say(usage(uint64(i+1), cpu))
		proposal(t, h.hear(), uint64(i+1)) // hear fails for a message out of bounds
		h.probe()
	}
}
