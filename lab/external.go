package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// external is a policy that another program plays, for CPU and memory. The other
// resources stay at their ceilings.
type external struct {
	open    func(knob float64, interval time.Duration) (io.ReadWriteCloser, error)
	knob    float64
	program io.ReadWriteCloser // nil before the play begins
	answers *bufio.Reader
	s       *stage
	killed  []int // by guest, as told
}

// request is what the program is asked after an interval that ended at t.
type request struct {
	VM  string  `json:"vm"`
	T   float64 `json:"t"`   // seconds
	CPU float64 `json:"cpu"` // mean use, cores
	Mem float64 `json:"mem"` // use at the end, bytes
	OOM bool    `json:"oom"` // killed for want of memory within the interval

	CPURequest float64 `json:"cpu_request"` // what it is given now, cores
	MemRequest float64 `json:"mem_request"` // what it is given now, bytes
}

// answer is what the program would give: 0 for what it knows nothing of. Where
// Apply is there and false, the limits stay.
type answer struct {
	CPU   float64 `json:"cpu"`
	Mem   float64 `json:"mem"`
	Apply *bool   `json:"apply"`
}

func playExternal(x External) func(float64) (controller, error) {
	return func(knob float64) (controller, error) { return &external{open: x.Open, knob: knob}, nil }
}

func (c *external) begin(s *stage) error {
	program, err := c.open(c.knob, s.interval)
	if err != nil {
		return fmt.Errorf("open policy: %w", err)
	}
	c.program, c.answers = program, bufio.NewReader(program)
	c.s, c.killed = s, make([]int, len(s.guests))
	return nil
}

func (c *external) sampled(i int, s gnomon.Sample) error {
	g := c.s.guests[i]
	q := request{VM: string(g.id), T: s.At.Sub(epoch).Seconds(), CPURequest: 1, MemRequest: 1 << 30}
	if l := g.lanes[gnomon.CPU]; l != nil {
		q.CPU, q.CPURequest = float64(s.Usage[gnomon.CPU])/1000, max(1e-3, l.limit/1000)
	}
	if l := g.lanes[gnomon.Memory]; l != nil {
		q.Mem, q.MemRequest = float64(s.Usage[gnomon.Memory]), max(1, l.limit)
		q.OOM, c.killed[i] = l.deaths > c.killed[i], l.deaths
	}
	line, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("ask policy: %w", err)
	}
	if _, err := c.program.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ask policy: %w", err)
	}
	text, err := c.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the policy's answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("read the policy's answer %.80q: %w", text, err)
	}
	if a.Apply != nil && !*a.Apply {
		return nil
	}
	c.apply(i, g, gnomon.CPU, a.CPU*1000)
	c.apply(i, g, gnomon.Memory, a.Mem)
	return nil
}

func (c *external) apply(i int, g *guest, r gnomon.Resource, to float64) {
	if g.lanes[r] != nil && to > 0 && !math.IsInf(to, 0) {
		c.s.admit(i, r, to)
	}
}

func (c *external) settled(int, gnomon.Resource, int64) {}
func (c *external) pressed(int, gnomon.Resource) bool   { return false }
func (c *external) wake() (time.Duration, bool)         { return 0, false }
func (c *external) woken()                              {}
func (c *external) ended(int)                           {}

func (c *external) fill(int, gnomon.Resource, *Outcome, float64) error { return nil }

// Close ends the program, if it was started.
func (c *external) Close() error {
	if c.program == nil {
		return nil
	}
	return c.program.Close()
}
