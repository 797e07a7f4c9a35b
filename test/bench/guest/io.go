//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/test/bench/item"
)

const chunk = 256 << 10

// write writes to the first disk past the page cache, round and round.
func write(bytes int64) (time.Duration, error) {
	fd, err := unix.Open("/dev/vda", unix.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, fmt.Errorf("open disk: %w", err)
	}
	defer unix.Close(fd)
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return 0, fmt.Errorf("measure disk: %w", err)
	}
	buf, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("map buffer: %w", err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	for at := int64(0); at < bytes; at += chunk {
		if _, err := unix.Pwrite(fd, buf, at%(size-size%chunk)); err != nil {
			return 0, fmt.Errorf("write disk: %w", err)
		}
	}
	return 0, nil
}

// send sends to the host and waits until all has arrived.
func send(subnet int, bytes int64) (time.Duration, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(context.Background(), "tcp4", fmt.Sprintf(item.HostAddress+":%d", subnet, item.SinkPort))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for left := bytes; left > 0; {
		n, err := conn.Write(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return 0, err
		}
		left -= int64(n)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, conn) // the host closes once it has all
	return 0, err
}

// bringUp gives the interface its address and brings it up.
func bringUp(device string, subnet int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	defer unix.Close(fd)
	addr, err := netip.ParseAddr(fmt.Sprintf(item.GuestAddress, subnet))
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	req, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	if err := req.SetInet4Addr(addr.AsSlice()); err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req); err != nil {
		return fmt.Errorf("set address of %s: %w", device, err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	return nil
}
