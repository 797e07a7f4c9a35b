//go:build linux && amd64

package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// harmless are the system calls that an agent makes as a process of the host:
// the Go runtime's, and those on what it has open. None opens a file, makes a
// socket, starts a program or reaches another process.
var harmless = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_FCNTL,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_RESTART_SYSCALL,
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_BRK,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_TGKILL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_CLOCK_GETTIME, unix.SYS_GETRUSAGE, unix.SYS_GETRANDOM,
}

// conditional are calls that are harmless if of an argument, by its index, the
// bits of mask are as wanted: no page becomes code, and what is made is a thread.
var conditional = []struct {
	call, arg, mask, want uint32
}{
	{unix.SYS_MMAP, 2, unix.PROT_EXEC, 0},
	{unix.SYS_MPROTECT, 2, unix.PROT_EXEC, 0},
	{unix.SYS_CLONE, 0, unix.CLONE_THREAD, unix.CLONE_THREAD},
}

// Offsets in the kernel's struct seccomp_data.
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16
)

// filter is the program that the kernel runs at each system call. Another call
// than those above fails, for any other architecture all do.
func filter() []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equals = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		and    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K

		allow = unix.SECCOMP_RET_ALLOW
		deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	p := []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equals, Jt: 1, K: unix.AUDIT_ARCH_X86_64},
		{Code: ret, K: deny},
		{Code: load, K: dataCall},
	}
	for _, call := range harmless {
		p = append(p, unix.SockFilter{Code: equals, Jf: 1, K: call}, unix.SockFilter{Code: ret, K: allow})
	}
	for _, c := range conditional {
		p = append(p,
			unix.SockFilter{Code: equals, Jf: 5, K: c.call},
			unix.SockFilter{Code: load, K: dataArgs + 8*c.arg},
			unix.SockFilter{Code: and, K: c.mask},
			unix.SockFilter{Code: equals, Jf: 1, K: c.want},
			unix.SockFilter{Code: ret, K: allow},
			unix.SockFilter{Code: ret, K: deny})
	}
	return append(p, unix.SockFilter{Code: ret, K: deny})
}

// enterSandbox gives up, for all threads and for good, every system call but
// those above.
func enterSandbox() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	f := filter()
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("enter sandbox: %w", errno)
	}
	return nil
}
