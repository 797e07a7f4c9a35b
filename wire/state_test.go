package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// A state comes through whole, and its parts keep to the rules.
func TestStateComesThrough(t *testing.T) {
	for _, n := range []int{1, maxStatePart - 1, maxStatePart, maxStatePart + 1, MaxState} {
		want := noise(n)
		parts, err := StateTo(7, want)
		if err != nil {
			t.Fatal(err)
		}
		var got StateParts
		s := new(stream)
		c := NewConn(s)
		for i, p := range parts {
			if err := c.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: p}}); err != nil {
				t.Fatal(err)
			}
			m, err := c.ReadToHost()
			if err != nil {
				t.Fatal(err)
			}
			b, whole := got.Add(m.GetState())
			if whole != (i == len(parts)-1) || whole && !bytes.Equal(b, want) {
				t.Errorf("%d bytes: after part %d of %d whole is %v, with %d bytes", n, i, len(parts), whole, len(b))
			}
		}
	}
	if _, err := StateTo(7, make([]byte, MaxState+1)); err == nil {
		t.Error("a state that is too large was taken")
	}
	none, err := StateTo(7, nil)
	if err != nil || len(none) != 1 || none[0].GetParts() != 0 || none[0].GetId() != 7 {
		t.Errorf("no state is %v, %v", none, err)
	}
}

func TestStateIsChecked(t *testing.T) {
	one := []byte{1}
	for name, tc := range map[string]struct {
		m    *agentpb.State
		want string
	}{
		"no parts":       {&agentpb.State{Data: one}, "part 0 of 0"},
		"too many parts": {&agentpb.State{Parts: maxStateParts + 1, Data: one}, "of 33"},
		"beyond":         {&agentpb.State{Part: 2, Parts: 2, Data: one}, "part 2 of 2"},
		"empty part":     {&agentpb.State{Parts: 1}, "0 bytes"},
		"large part":     {&agentpb.State{Parts: 1, Data: make([]byte, maxStatePart+1)}, "32769 bytes"},
	} {
		s := new(stream)
		if err := NewConn(s).WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: tc.m}}); err != nil {
			t.Fatal(err)
		}
		_, err := NewConn(s).ReadToHost()
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want a malformed message with %q", name, err, tc.want)
		}
	}
}

// Whatever parts come in whatever order, what is whole is one state in full, and
// no more than one is held.
func TestPartsOfTwoStatesAreNotMixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pool []*agentpb.State
		states := map[uint64][]byte{}
		for id := range uint64(3) {
			states[id] = bytes.Repeat([]byte{byte(id)}, rapid.IntRange(1, 4*maxStatePart).Draw(t, "size"))
			parts, err := StateTo(id, states[id])
			if err != nil {
				t.Fatal(err)
			}
			pool = append(pool, parts...)
		}
		var got StateParts
		for range rapid.IntRange(0, 30).Draw(t, "parts") {
			m := proto.CloneOf(rapid.SampledFrom(pool).Draw(t, "part"))
			if rapid.IntRange(0, 9).Draw(t, "forged") == 0 {
				m.Part, m.Parts = rapid.Uint32().Draw(t, "number"), rapid.Uint32().Draw(t, "of")
				got.Add(m)
				got = StateParts{} // what it holds now is the forger's
				continue
			}
			if b, whole := got.Add(m); whole && !bytes.Equal(b, states[m.GetId()]) {
				t.Fatalf("state %d came out as %d bytes, want %d", m.GetId(), len(b), len(states[m.GetId()]))
			}
			if len(got.data) > MaxState {
				t.Fatalf("%d bytes are held", len(got.data))
			}
		}
		// From a first part on, what follows in order is whole.
		parts, err := StateTo(9, states[0])
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range parts {
			if b, whole := got.Add(m); whole != (i == len(parts)-1) || whole && !bytes.Equal(b, states[0]) {
				t.Fatalf("part %d of %d: whole is %v", i, len(parts), whole)
			}
		}
	})
}
