package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// keeper meets an agent as a host that keeps states, and returns the id of its
// request for one.
func keeper(h *host, nonce uint64, now time.Time) uint64 {
	h.t.Helper()
	if got := h.hear().GetHello(); got.GetNonce() != nonce {
		h.t.Fatalf("hello is %v, want nonce %d", got, nonce)
	}
	w := welcome(nonce, "vm-a")
	w.GetWelcome().KeepsState, w.GetWelcome().NowUnixNano = true, now.UnixNano()
	h.say(w)
	req := h.hear().GetStateRequest()
	if req == nil {
		h.t.Fatal("no state is asked for")
	}
	return req.GetId()
}

func (h *host) give(id uint64, state []byte) {
	h.t.Helper()
	parts, err := wire.StateTo(id, state)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range parts {
		h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_State{State: p}})
	}
}

// asksHistory reports whether said is a request for the history of each
// resource.
func asksHistory(said []*agentpb.ToHost) bool {
	for i, m := range said {
		if m.GetHistory().GetResource() != agentpb.Resource(i+1) {
			return false
		}
	}
	return len(said) == gnomon.NumResources
}

// learned is a state that an agent sent after seq events, a second apart, and
// what it said to the next one.
func learned(t *testing.T, seq uint64) (state []byte, next *agentpb.Want) {
	t.Helper()
	h := attach(t, newAgent(t))
	h.give(keeper(h, 1, time.Unix(1000, 0)), nil)
	if said := h.probe(); !asksHistory(said) {
		t.Fatalf("told that there is no state, it said %v", said)
	}
	var parts wire.StateParts
	sent := 0
	for n := range seq {
		h.say(usage(n+1, 1000))
		for _, m := range h.probe() {
			if m.GetState() == nil {
				continue
			}
			if b, whole := parts.Add(m.GetState()); whole {
				state = b
				sent++
			}
		}
	}
	if sent != 2 {
		t.Fatalf("%d states were sent in %d s, want 2", sent, seq)
	}
	h.say(usage(seq+1, 1000))
	return state, proposal(t, h.hear(), seq+1)
}

const learnedEvents = 140

func TestNewAgentGoesOnWhereTheLastOneWas(t *testing.T) {
	state, want := learned(t, learnedEvents)
	h := attach(t, newAgent(t))
	h.give(keeper(h, 1, time.Unix(1000+learnedEvents, 0)), state)
	said := h.probe()
	if len(said) != 1 || !strings.Contains(said[0].GetLog().GetText(), "resumed with 81 samples, 59s after the newest") {
		t.Errorf("given a state it said %v", said)
	}
	h.say(usage(learnedEvents+1, 1000))
	got := proposal(t, h.hear(), learnedEvents+1)
	if got.GetModel() != want.GetModel() || got.GetHigh() != want.GetHigh() {
		t.Errorf("it forecasts %v, the agent before it %v", got, want)
	}
}

// Without a state that can be used, the history is asked for: as well as an old
// one, or instead of it.
func TestStatesThatDoNotDo(t *testing.T) {
	state, _ := learned(t, learnedEvents)
	damaged := []byte(string(state[:len(state)-1]) + "x")
	for name, tc := range map[string]struct {
		state   []byte
		at      int64 // seconds after the events began
		resumed bool
	}{
		"none":    {nil, learnedEvents, false},
		"damaged": {damaged, learnedEvents, false},
		"old":     {state, learnedEvents + 3600, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := attach(t, newAgent(t))
			h.give(keeper(h, 1, time.Unix(1000+tc.at, 0)), tc.state)
			said := h.probe()
			resumed := len(said) > 0 && strings.HasPrefix(said[0].GetLog().GetText(), "resumed")
			if resumed {
				said = said[1:]
			}
			if resumed != tc.resumed || !asksHistory(said) {
				t.Errorf("resumed is %v, and then it said %v", resumed, said)
			}
		})
	}
}

// An answer that is cut short, or another's, is none.
func TestStateInPieces(t *testing.T) {
	a := newAgent(t)
	h := attach(t, a)
	id := keeper(h, 1, time.Unix(1000, 0))
	parts, err := wire.StateTo(id, make([]byte, 100_000))
	if err != nil {
		t.Fatal(err)
	}
	say := func(p *agentpb.State) { h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_State{State: p}}) }
	say(&agentpb.State{Id: id + 1})
	say(parts[0])
	if said := h.probe(); len(said) != 0 {
		t.Fatalf("after a part of its state, and another's, it said %v", said)
	}
	// The connection ends before the rest came: it asks again.
	h.raw.Close()
	<-h.done
	h = attach(t, a)
	again := keeper(h, 2, time.Unix(1000, 0))
	if again == id {
		t.Errorf("both requests have id %d", id)
	}
	// A part is lost.
	last := &agentpb.State{Id: again, Part: parts[len(parts)-1].GetPart(), Parts: parts[0].GetParts(), Data: []byte{1}}
	h.say(&agentpb.ToAgent{Message: &agentpb.ToAgent_State{State: last}})
	if said := h.probe(); !asksHistory(said) {
		t.Errorf("after a state with a part lost it said %v", said)
	}
}

// A host that keeps no state is sent none.
func TestNoStateWhereNoneIsKept(t *testing.T) {
	h := attach(t, newAgent(t))
	meet(h, 1, "vm-a", nil)
	for seq := range uint64(130) {
		h.say(usage(seq+1, 1000))
		for _, m := range h.probe() {
			if m.GetState() != nil || m.GetStateRequest() != nil {
				t.Fatalf("event %d: it sent %v", seq+1, m)
			}
		}
	}
}
