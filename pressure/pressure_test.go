package pressure

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// Every source passes the same test.
func TestSources(t *testing.T) {
	for _, name := range []string{EBPF, Perf, Sampling} {
		t.Run(name, func(t *testing.T) {
			v := startVCPU(t)
			s, why, err := Open(name)
			if err != nil || why != nil {
				t.Fatalf("Open: %v, %v", why, err)
			}
			t.Cleanup(func() { _ = s.Close() })
			conforms(t, s, v)
		})
	}
}

func conforms(t *testing.T, s Source, v *vcpu) {
	const id = gnomon.VMID("vm")
	if !s.Resources().Has(gnomon.CPU) {
		t.Errorf("Resources() = %v, want CPU among them", s.Resources())
	}
	if err := s.Follow(Subject{VM: id, Process: v.pid, VCPUs: []int{v.tid}}); err != nil {
		t.Fatalf("Follow: %v", err)
	}
	none(t, s, "an idle VM", 300*time.Millisecond)

	v.limit(t)
	began := v.compute(t, time.Second)
	o := await(t, s, began)
	if o.VM != id || o.Resource != gnomon.CPU || o.Cause != Throttled && o.Cause != Queued {
		t.Errorf("onset = %+v, want one of %s's CPU", o, id)
	}
	if o.Interval < leastPast || o.Run+o.Wait <= 0 || o.Run+o.Wait > o.Interval {
		t.Errorf("onset's recent past: ran %v and waited %v of %v, want something to all of at least %v", o.Run, o.Wait, o.Interval, leastPast)
	}
	if age := time.Since(o.At); age < 0 || age > time.Minute {
		t.Errorf("onset is %v old", age)
	}

	s.Forget(id)
	s.Forget(id)
	drain(s)
	v.compute(t, 300*time.Millisecond)
	none(t, s, "a VM that was forgotten", 300*time.Millisecond)

	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if _, open := <-s.Onsets(); open {
		t.Error("the channel delivers after Close")
	}
}

// Whatever the clocks say, nothing is more than its whole.
func TestOnsetAddsVCPUs(t *testing.T) {
	type times struct{ run, wait time.Duration }
	for _, c := range []struct {
		name            string
		vcpus           int
		past, run, wait time.Duration
		want            times
	}{
		{"over the same time", 1, 40, 10, 20, times{10, 20}},
		{"over twice the time", 1, 80, 10, 20, times{5, 10}},
		{"over half the time", 1, 20, 5, 10, times{10, 20}},
		{"several", 3, 40, 60, 50, times{60, 50}},
		{"waited longer than there was", 1, 40, 6, 88, times{6, 34}},
		{"ran longer than there was", 1, 40, 50, 88, times{40, 0}},
		{"several, longer than there was", 2, 80, 100, 200, times{50, 30}},
	} {
		o := Onset{Interval: 40}
		o.add(c.vcpus, c.past, c.run, c.wait)
		if got := (times{o.Run, o.Wait}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func await(t *testing.T, s Source, began uint64) Onset {
	t.Helper()
	select {
	case o := <-s.Onsets():
		t.Logf("%s: %v after demand began: %s, ran %v, waited %v of %v", s.Name(),
			since(monotonic(), began).Round(10*time.Microsecond), o.Cause, o.Run, o.Wait, o.Interval)
		return o
	case <-time.After(time.Minute):
		t.Fatal("no onset within a minute")
		panic("unreachable")
	}
}

func none(t *testing.T, s Source, what string, within time.Duration) {
	t.Helper()
	select {
	case o := <-s.Onsets():
		t.Errorf("onset of %s: %+v", what, o)
	case <-time.After(within):
	}
}

func drain(s Source) {
	for {
		select {
		case <-s.Onsets():
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}
