package main

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

// device is a non-blocking channel that is read and written without telling the
// scheduler: for each call that may block the runtime wakes its monitor, whose
// naps of 20 µs cost a guest without KVM as much as the agent's own work.
type device struct {
	file *os.File
	raw  syscall.RawConn
}

func newDevice(f *os.File) (device, error) {
	raw, err := f.SyscallConn()
	return device{f, raw}, err
}

func (d device) Read(b []byte) (int, error) {
	n, err := d.call(d.raw.Read, syscall.SYS_READ, b)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

func (d device) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = d.call(d.raw.Write, syscall.SYS_WRITE, b[n:])
		n += k
	}
	return n, err
}

func (d device) Close() error { return d.file.Close() }

// call makes a system call once the device may be ready for it. wait is how the
// runtime's poller waits for that.
func (d device) call(wait func(func(uintptr) bool) error, trap uintptr, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var n uintptr
	var errno syscall.Errno
	err := wait(func(fd uintptr) bool {
		for errno = syscall.EINTR; errno == syscall.EINTR; {
			n, _, errno = syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		}
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}
