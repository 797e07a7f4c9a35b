package host

import (
	"errors"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// told is a source of the onsets that a test makes up: VMs that are simulated
// have no threads that a kernel could see.
type told struct {
	onsets chan pressure.Onset

	mu       sync.Mutex
	followed map[gnomon.VMID]bool
	lines    map[gnomon.VMID]pressure.Lines
}

func newTold() *told {
	return &told{onsets: make(chan pressure.Onset), followed: map[gnomon.VMID]bool{}, lines: map[gnomon.VMID]pressure.Lines{}}
}

func (s *told) Follow(v pressure.Subject) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed[v.VM] = true
	return nil
}

func (s *told) Forget(id gnomon.VMID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.followed, id)
}

func (s *told) Draw(id gnomon.VMID, l pressure.Lines) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines[id] = l
}

func (s *told) follows(id gnomon.VMID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followed[id]
}

func (s *told) CPU(gnomon.VMID) (pressure.CPUTimes, bool) { return pressure.CPUTimes{}, false }
func (s *told) Onsets() <-chan pressure.Onset             { return s.onsets }
func (s *told) Name() string                              { return "told" }
func (s *told) Resources() gnomon.ResourceSet             { return gnomon.SetOf(gnomon.CPU) }
func (s *told) Close() error                              { close(s.onsets); return nil }

// An onset raises the limit long before the next sample is due, and its agent
// is told.
func TestOnsetIsServedAtOnce(t *testing.T) {
	r, source := newRig(t), newTold()
	r.opt.Pressure, r.opt.PressureWhy = source, errors.New("better: not allowed")
	r.configure(map[string]string{"monitoringInterval": "1m", "predictionHorizon": "2m"})
	r.start()
	id := r.add(simulated.Spec{ID: "vm1", Name: "vm1", Limits: gnomon.Resources{gnomon.CPU: 200, gnomon.Memory: 256 << 20}})
	r.eventually("the agent is attached", r.attached(id))
	if !source.follows(id) {
		t.Fatal("the VM is not followed")
	}
	source.onsets <- pressure.Onset{
		VM: id, Resource: gnomon.CPU, Cause: pressure.Throttled, At: time.Now(),
		Interval: 5 * time.Millisecond, Run: time.Millisecond, Wait: 3 * time.Millisecond,
	}
	r.eventually("its CPU is raised to what it demands and more", func() bool { return r.limit(id, gnomon.CPU) >= 800 })
	r.eventually("its agent answered", func() bool {
		v := r.daemon.vms[id]
		return v.wants[gnomon.CPU].Model != "" && v.last.Demand[gnomon.CPU] == 800
	})
	res, err := r.api.Status(t.Context(), connect.NewRequest(&hostpb.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if p := res.Msg.GetPressure(); p.GetSource() != "told" || len(p.GetResources()) != 1 || p.GetWhyNotBetter() == "" {
		t.Errorf("status: pressure = %v", p)
	}
	if err := r.sim.RemoveVM(id); err != nil {
		t.Fatal(err)
	}
	r.eventually("the VM is forgotten", func() bool { return !source.follows(id) })
	source.onsets <- pressure.Onset{VM: id, Resource: gnomon.CPU, At: time.Now()}
	source.onsets <- pressure.Onset{VM: "none", Resource: gnomon.CPU, At: time.Now()}
	r.stop()
	_ = source.Close()
}

// A VM that had all it may have, and has less since, is looked at again before
// the next sample tells that it has less.
func TestOnsetAfterAShrink(t *testing.T) {
	r, source := newRig(t), newTold()
	r.opt.Pressure = source
	r.configure(map[string]string{"monitoringInterval": "2s", "predictionHorizon": "10s"})
	r.start()
	id := r.add(simulated.Spec{ID: "vm1", Name: "vm1", Limits: gnomon.Resources{gnomon.CPU: 1000, gnomon.Memory: 256 << 20}})
	r.eventually("an idle VM has little CPU", func() bool {
		st, ok := r.daemon.broker.View(id)
		return ok && st.Resources[gnomon.CPU].Allocated < 500
	})
	source.onsets <- pressure.Onset{
		VM: id, Resource: gnomon.CPU, Cause: pressure.Throttled, At: time.Now(),
		Interval: 5 * time.Millisecond, Run: time.Millisecond, Wait: 4 * time.Millisecond,
	}
	r.eventually("it was given what it demanded", func() bool {
		for _, d := range r.daemon.vms[id].decisions.latest(0) {
			if d.Resource == gnomon.CPU && d.Kind == gnomon.DecideGrow && d.To == 1000 {
				return true
			}
		}
		return false
	})
	r.stop()
	_ = source.Close()
}

// However many onsets come, no more than a few are heeded in any second, and
// one that stays is heeded less and less often.
func TestUrgency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u urgency
		var heeded []time.Time
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 500 {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ms")) * time.Millisecond)
			r := gnomon.Resource(rapid.IntRange(0, gnomon.NumResources-1).Draw(t, "resource"))
			cause := rapid.SampledFrom([]pressure.Cause{pressure.Throttled, pressure.Queued}).Draw(t, "cause")
			if o := (pressure.Onset{Resource: r, Cause: cause}); u.allow(o, now) {
				heeded = append(heeded, now)
				u.done(o)
			}
			if rapid.IntRange(0, 5).Draw(t, "relieved") == 0 {
				u.relieved(r)
			}
		}
		for i, at := range heeded {
			if i >= urgentMost && at.Sub(heeded[i-urgentMost]) < time.Second {
				t.Fatalf("%d within %v", urgentMost+1, at.Sub(heeded[i-urgentMost]))
			}
		}
		if len(heeded) == 0 {
			t.Fatal("none was heeded")
		}
	})
	var u urgency
	count, now := 0, time.Now()
	queued, throttled := pressure.Onset{Cause: pressure.Queued}, pressure.Onset{Cause: pressure.Throttled}
	for range 2000 {
		if now = now.Add(10 * time.Millisecond); u.allow(queued, now) {
			count++
			u.done(queued)
		}
	}
	if count < 35 || count > 50 {
		t.Errorf("a VM that waits for 20 s was heeded %d times, want about one every %v", count, urgentRest)
	}
	if !u.allow(throttled, now) {
		t.Error("a VM that waits is not heard when it is throttled")
	}
	if u.allow(throttled, now.Add(time.Second)) {
		t.Error("looked at again while still looked at")
	}
}
