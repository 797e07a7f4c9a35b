package pressure

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon"
)

// perfPeriod is how long a vCPU runs, in nanoseconds, until its counter wakes
// the daemon to look at it.
const perfPeriod = 4_000_000

// perf is the source of counters that interrupt: one a vCPU, which counts while
// it runs and costs nothing while it does not.
type perf struct {
	*looker
	epoll   int
	wake    int // an eventfd that ends the loop
	once    sync.Once
	running sync.WaitGroup

	counters map[int]*counter // by file descriptor; the looker's mu guards it
}

// counter is one vCPU's, with the ring that the kernel writes to: nothing is
// read from it, but without one the descriptor never becomes ready.
type counter struct {
	fd   int
	vm   gnomon.VMID
	tid  int
	ring []byte
}

func openPerf() (Source, error) {
	p := &perf{looker: newLooker(Perf), counters: map[int]*counter{}, epoll: -1, wake: -1}
	p.changed = p.follow
	// Whether counters are allowed at all is found out on this process itself.
	c, err := openCounter("", unix.Gettid())
	if err != nil {
		return nil, err
	}
	c.close()
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = p.await(p.wake)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open eventfd: %w", err)
	}
	p.running.Go(p.run)
	return p, nil
}

func openCounter(vm gnomon.VMID, tid int) (*counter, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Sample: perfPeriod, Wakeup: 1,
	}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open counter of thread %d: %w", tid, err)
	}
	ring, err := unix.Mmap(fd, 0, 2*unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map counter of thread %d: %w", tid, err)
	}
	return &counter{fd: fd, vm: vm, tid: tid, ring: ring}, nil
}

func (c *counter) close() {
	_ = unix.Munmap(c.ring)
	_ = unix.Close(c.fd)
}

// drain tells the kernel that all it wrote was read.
func (c *counter) drain() {
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(&c.ring[0]))
	atomic.StoreUint64(&page.Data_tail, atomic.LoadUint64(&page.Data_head))
}

func (p *perf) await(fd int) error {
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// follow opens counters for the threads of a VM that have none, and closes
// those of others of its threads.
func (p *perf) follow(id gnomon.VMID, threads []int) error {
	missing := make(map[int]bool, len(threads))
	for _, tid := range threads {
		missing[tid] = true
	}
	for fd, c := range p.counters {
		switch {
		case c.vm != id:
		case missing[c.tid]:
			delete(missing, c.tid)
		default:
			delete(p.counters, fd)
			c.close()
		}
	}
	var failed []error
	for tid := range missing {
		c, err := openCounter(id, tid)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if err := p.await(c.fd); err != nil {
			c.close()
			failed = append(failed, fmt.Errorf("await counter of thread %d: %w", tid, err))
			continue
		}
		p.counters[c.fd] = c
	}
	return errors.Join(failed...)
}

func (p *perf) run() {
	defer close(p.onsets)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if int(e.Fd) == p.wake {
				return
			}
			if id, ok := p.took(int(e.Fd), e.Events); ok {
				p.look(id)
			}
		}
	}
}

// took empties a counter's ring and returns whose it is.
func (p *perf) took(fd int, events uint32) (gnomon.VMID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counters[fd]
	if c == nil {
		return "", false
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 { // the thread ended
		delete(p.counters, fd)
		c.close()
		return "", false
	}
	c.drain()
	return c.vm, true
}

func (p *perf) Close() error {
	p.once.Do(func() {
		_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		p.running.Wait()
		p.close()
	})
	return nil
}

func (p *perf) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd, c := range p.counters {
		delete(p.counters, fd)
		c.close()
	}
	for _, fd := range []int{p.epoll, p.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
