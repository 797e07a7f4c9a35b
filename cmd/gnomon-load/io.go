//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// sink takes the bytes of bursts: a disk or an interface.
type sink struct {
	rate  int64 // bytes per second that a burst asks for
	chunk int64 // bytes per write
	write func() error
}

// errAbsent tells that the guest has no such device; that load is left out.
var errAbsent = errors.New("no such device")

// bursts writes at the sink's rate through every burst. Chunks come due by the
// clock; those that a slow sink delays are written late, and none is dropped.
func (g *generator) bursts(r gnomon.Resource, open func() (sink, error)) {
	s, err := open()
	if errors.Is(err, errAbsent) {
		return
	}
	if err != nil {
		g.out.trouble(err)
		return
	}
	for b := range workload.Bursts(g.seed, r) {
		g.waitFor(b.Start)
		g.out.send(workload.Report{Kind: workload.Onset, At: b.Start, Resource: r})
		chunks := int64(b.Length.Seconds() * float64(s.rate) / float64(s.chunk))
		for i := range chunks {
			g.waitFor(b.Start + b.Length*time.Duration(i)/time.Duration(chunks))
			if err := s.write(); err != nil {
				g.out.trouble(err)
			}
		}
		g.out.send(workload.Report{
			Kind: workload.Over, At: b.Start, Took: g.now() - b.Start,
			Resource: r, Bytes: chunks * s.chunk,
		})
	}
}

// openDisk returns the first virtio disk, written past the page cache and
// round and round.
func openDisk() (sink, error) {
	const device = "/dev/vda"
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.ENOENT) {
		return sink{}, errAbsent
	}
	if err != nil {
		return sink{}, fmt.Errorf("open disk: %w", err)
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return sink{}, fmt.Errorf("measure disk: %w", err)
	}
	if size < workload.DiskChunk {
		return sink{}, fmt.Errorf("open disk: %d bytes are too few", size)
	}
	// A mapping is aligned to pages, as O_DIRECT demands.
	buf, err := unix.Mmap(-1, 0, workload.DiskChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return sink{}, fmt.Errorf("map disk buffer: %w", err)
	}
	for i := range buf {
		buf[i] = byte(i)
	}
	var at int64
	write := func() error {
		if at+workload.DiskChunk > size {
			at = 0
		}
		_, err := unix.Pwrite(fd, buf, at)
		at += workload.DiskChunk
		if err != nil {
			return fmt.Errorf("write disk: %w", err)
		}
		return nil
	}
	return sink{rate: workload.DiskRate, chunk: workload.DiskChunk, write: write}, nil
}

const (
	frameSize = 1514
	// framesAtOnce frames are one chunk, so that pacing costs few wake-ups.
	framesAtOnce = 32
	// localExperimental is the EtherType that is set aside for private use.
	localExperimental = 0x88b5
)

// openNetwork returns the first interface, as raw frames that nobody answers.
func openNetwork() (sink, error) {
	const device = "eth0"
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return sink{}, errAbsent
	}
	if err := bringUp(device); err != nil {
		return sink{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return sink{}, fmt.Errorf("open packet socket: %w", err)
	}
	frame := make([]byte, frameSize)
	copy(frame[0:6], []byte{0x02, 0, 0, 0, 0, 0x01})
	copy(frame[6:12], ifc.HardwareAddr)
	frame[12], frame[13] = localExperimental>>8, localExperimental&0xff
	to := &unix.SockaddrLinklayer{Ifindex: ifc.Index}
	write := func() error {
		for range framesAtOnce {
			// A full queue is the device's way to say wait.
			for {
				err := unix.Sendto(fd, frame, 0, to)
				if err == nil {
					break
				}
				if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
					return fmt.Errorf("send frame: %w", err)
				}
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	}
	return sink{rate: workload.NetworkRate, chunk: frameSize * framesAtOnce, write: write}, nil
}

func bringUp(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	return nil
}
