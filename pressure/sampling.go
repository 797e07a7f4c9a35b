package pressure

import (
	"sync"
	"time"
)

// samplingInterval is how often the source of last resort looks at each VM,
// which costs a few microseconds a vCPU.
const samplingInterval = 100 * time.Millisecond

type sampling struct {
	*looker
	stop    chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

func openSampling() (Source, error) {
	s := &sampling{looker: newLooker(Sampling), stop: make(chan struct{})}
	s.running.Go(s.run)
	return s, nil
}

func (s *sampling) run() {
	defer close(s.onsets)
	tick := time.NewTicker(samplingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.lookAtAll()
		case <-s.stop:
			return
		}
	}
}

func (s *sampling) Close() error {
	s.once.Do(func() { close(s.stop) })
	s.running.Wait()
	return nil
}
