package wire

import (
	"fmt"

	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// The bounds of an agent's state, in bytes.
const (
	maxStatePart  = 32 << 10
	maxStateParts = 32
	MaxState      = maxStatePart * maxStateParts
)

// StateTo returns a state cut into messages. An empty one is a single message
// that says there is none. The error is of one above MaxState.
func StateTo(id uint64, state []byte) ([]*agentpb.State, error) {
	if len(state) > MaxState {
		return nil, fmt.Errorf("send state of %d bytes: at most %d", len(state), MaxState)
	}
	if len(state) == 0 {
		return []*agentpb.State{{Id: id}}, nil
	}
	var parts []*agentpb.State
	for rest := state; len(rest) > 0; {
		n := min(len(rest), maxStatePart)
		parts = append(parts, &agentpb.State{Id: id, Part: uint32(len(parts)), Data: rest[:n]})
		rest = rest[n:]
	}
	for _, p := range parts {
		p.Parts = uint32(len(parts))
	}
	return parts, nil
}

func checkState(m *agentpb.State) error {
	if m.GetParts() < 1 || m.GetParts() > maxStateParts || m.GetPart() >= m.GetParts() {
		return fmt.Errorf("state: part %d of %d: want 1 to %d parts, counted from 0", m.GetPart(), m.GetParts(), maxStateParts)
	}
	if len(m.GetData()) == 0 || len(m.GetData()) > maxStatePart {
		return fmt.Errorf("state: part of %d bytes: want 1 to %d", len(m.GetData()), maxStatePart)
	}
	return nil
}

// StateParts puts a state together from its parts. The zero value waits for a
// first one.
type StateParts struct {
	id          uint64
	next, parts uint32
	data        []byte
}

// Add takes in the next part and returns the state once it is whole. A part that
// does not follow the one before is lost with those before it.
func (s *StateParts) Add(m *agentpb.State) (state []byte, whole bool) {
	if checkState(m) != nil {
		*s = StateParts{}
		return nil, false
	}
	if m.GetPart() == 0 {
		*s = StateParts{id: m.GetId(), parts: m.GetParts()}
	}
	if m.GetId() != s.id || m.GetPart() != s.next || m.GetParts() != s.parts {
		*s = StateParts{}
		return nil, false
	}
	s.data = append(s.data, m.GetData()...)
	s.next++
	if s.next < s.parts {
		return nil, false
	}
	state = s.data
	*s = StateParts{}
	return state, true
}
