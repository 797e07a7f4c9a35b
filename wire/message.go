package wire

import (
	"fmt"

	"github.com/gnomon-vm/gnomon/wire/agentpb"
	"google.golang.org/protobuf/proto"
)

// ReadToHost reads an agent's next message and checks it, see Check. The errors
// are those of ReadFrame, and ErrMalformed.
func (c *Conn) ReadToHost() (*agentpb.ToHost, error) {
	b, err := c.ReadFrame()
	if err != nil {
		return nil, err
	}
	m := new(agentpb.ToHost)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := Check(m); err != nil {
		return nil, err
	}
	return m, nil
}

// WriteToHost sends an agent's message.
func (c *Conn) WriteToHost(m *agentpb.ToHost) error { return c.write(m) }

// ReadToAgent reads the host's next message. The errors are those of ReadFrame,
// and ErrMalformed.
func (c *Conn) ReadToAgent() (*agentpb.ToAgent, error) {
	b, err := c.ReadFrame()
	if err != nil {
		return nil, err
	}
	m := new(agentpb.ToAgent)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}

// WriteToAgent sends the host's message.
func (c *Conn) WriteToAgent(m *agentpb.ToAgent) error { return c.write(m) }

func (c *Conn) write(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return c.WriteFrame(b)
}
