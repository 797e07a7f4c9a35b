package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/pressure"
)

// mode is one way in which the VM comes by the resource.
type mode struct {
	name    string
	reserve bool // asked for ahead of time
	ahead   bool // and told when it will be needed
	free    bool // the VM has it all along
	trigger func(ctx context.Context, s *stand, r gnomon.Resource, begun <-chan struct{}) error
}

var modes = []mode{
	{name: "ahead", reserve: true, ahead: true},
	{name: "reserved", reserve: true, trigger: onEvent},
	{name: "event", trigger: onEvent},
	{name: "poll", trigger: onPoll},
	{name: "free", free: true},
}

const (
	pollInterval = time.Second
	memoryTold   = 1200 * time.Millisecond // the guest tells of its memory once a second
)

// work is what the VM's guest does: it needs what the neighbour holds.
func (s *stand) work(r gnomon.Resource) int64 {
	switch r {
	case gnomon.CPU:
		return s.iterations
	case gnomon.Memory:
		return sizes[r].large - sizes[r].small
	case gnomon.Disk:
		return 8 << 20
	default:
		return 4 << 20
	}
}

// outcome is one run's.
type outcome struct {
	took   time.Duration // from the onset to the end of the work
	waited time.Duration // of it, without memory to go on with
	acted  time.Duration // what the latest change of a limit took
}

// tried is trial, and again if it fails: on a busy machine a call may take too
// long.
func (s *stand) tried(ctx context.Context, r gnomon.Resource, m mode) (o outcome, err error) {
	const tries = 3
	for range tries {
		if o, err = s.trial(ctx, r, m); err == nil || ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "%s, %s: once more: %v\n", r, m.name, err)
	}
	return o, err
}

// trial has the work done once, from the same start.
func (s *stand) trial(ctx context.Context, r gnomon.Resource, m mode) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	z := sizes[r]
	vm, donor := z.small, z.large
	if m.free {
		vm, donor = z.large, z.small
	}
	if err := s.set(ctx, r, vm, donor); err != nil {
		return outcome{}, err
	}
	if err := s.follow(ctx); err != nil {
		return outcome{}, err
	}
	defer s.flying.Wait()
	s.acted = 0
	if !m.free {
		if err := s.prepare(ctx, r, m); err != nil {
			return outcome{}, err
		}
	}
	begun := make(chan struct{})
	watching, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() {
		var err error
		if m.trigger != nil {
			err = m.trigger(watching, s, r, begun)
		}
		watched <- err
	}()
	// At any point of the poll's interval.
	time.Sleep(time.Duration(rand.Int64N(int64(pollInterval))))
	s.ordered.Store(time.Now().UnixNano())
	done, err := s.vm.Do(ctx, r, s.work(r), func() { close(begun) })
	stop()
	if e := <-watched; e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	s.flying.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return outcome{done.Took, done.Waited, s.acted}, errors.Join(err, s.failed)
}

// prepare brings the broker to where the VM's demand finds it.
func (s *stand) prepare(ctx context.Context, r gnomon.Resource, m mode) error {
	if r == gnomon.Memory {
		time.Sleep(memoryTold)
	}
	s.begin(r)
	for range 2 { // two readings make a sample
		if _, err := s.sample(ctx); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
	}
	if !m.reserve {
		return nil
	}
	want := gnomon.Want{Resource: r, Level: sizes[r].large, Lifetime: 5 * time.Minute, NeedIn: 2 * time.Minute}
	if m.ahead {
		want.NeedIn = 0
	}
	for seq := uint64(1); ; seq++ {
		if seq == 1 {
			s.step(gnomon.Event{Proposed: &gnomon.Proposal{VM: s.vm.ID, Seq: seq, At: time.Now(), Wants: []gnomon.Want{want}}})
		}
		st := s.state(r)
		ready := st.Reserved >= (want.Level-sizes[r].small)*9/10 || st.Allocated >= want.Level*9/10
		if m.ahead {
			ready = st.Observed >= want.Level*9/10
		}
		if ready {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the reservation: %w: %+v", ctx.Err(), *st)
		}
		time.Sleep(500 * time.Millisecond)
		if _, err := s.sample(ctx); err != nil {
			return err
		}
	}
}

// onEvent asks for the resource as soon as the kernel tells that the VM begins
// to be short of it. Of memory only the guest knows: there the event is its own
// word, which comes sooner than any.
func onEvent(ctx context.Context, s *stand, r gnomon.Resource, begun <-chan struct{}) error {
	s.source.Draw(s.vm.ID, pressure.Lines{Disk: sizes[gnomon.Disk].small, Network: sizes[gnomon.Network].small})
	for {
		select {
		case o := <-s.source.Onsets():
			// What was told before the work was ordered is of the one before.
			if r == gnomon.Memory || o.VM != s.vm.ID || o.Resource != r || o.At.UnixNano() < s.ordered.Load() {
				continue
			}
		case <-begun:
			if r != gnomon.Memory {
				begun = nil
				continue
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		s.demand(r)
		return nil
	}
}

// onPoll asks for it when the demand shows in counters that are read once a
// second.
func onPoll(ctx context.Context, s *stand, r gnomon.Resource, _ <-chan struct{}) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		sample, err := s.own(ctx)
		if err != nil {
			return err
		}
		if sample.Known.Has(r) && sample.Demand[r] >= sizes[r].small*9/10 {
			s.demand(r)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// own reads the VM alone and tells nobody.
func (s *stand) own(ctx context.Context) (gnomon.Sample, error) {
	counters, err := s.driver.Read(ctx, []gnomon.VMID{s.vm.ID})
	if err != nil || len(counters) == 0 {
		return gnomon.Sample{}, err
	}
	sample, _ := s.meters[s.vm.ID].Next(counters[0])
	return sample, nil
}

func (s *stand) demand(r gnomon.Resource) {
	var levels gnomon.Resources
	levels[r] = sizes[r].large
	s.step(gnomon.Event{Demanded: &gnomon.Demanded{VM: s.vm.ID, Levels: levels}})
}
