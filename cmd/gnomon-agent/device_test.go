package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A write that does not fit waits, a read that has nothing waits, and the other
// end's close is the end.
func TestDevice(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]device
	for i, fd := range fds {
		if ends[i], err = newDevice(os.NewFile(uintptr(fd), "end")); err != nil {
			t.Fatal(err)
		}
	}
	sent := bytes.Repeat([]byte("0123456789"), 1<<17)
	wrote := make(chan error, 1)
	go func() {
		n, err := ends[0].Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		wrote <- errors.Join(err, ends[0].Close())
	}()
	got, err := io.ReadAll(ends[1])
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v, want the %d that were written", len(got), err, len(sent))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if _, err := ends[1].Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write to nobody: %v, want %v", err, unix.EPIPE)
	}
	if err := ends[1].Close(); err != nil {
		t.Error(err)
	}
	if _, err := ends[1].Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read when closed: %v, want another error", err)
	}
}
