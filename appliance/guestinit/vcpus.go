//go:build linux

package guestinit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// BringOnline has the kernel use each vCPU that is plugged from now on, as udev
// does elsewhere. It returns only on failure.
func BringOnline() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("listen for vCPUs: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("listen for vCPUs: %w", err)
	}
	event := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, event, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("listen for vCPUs: %w", err)
		}
		if cpu, ok := pluggedCPU(event[:n]); ok {
			// One that does not come online is not used, nothing worse.
			_ = os.WriteFile(filepath.Join("/sys", cpu, "online"), []byte("1"), 0)
		}
	}
}

// pluggedCPU returns the device that a kernel's event tells of, if that is a CPU
// that was added.
func pluggedCPU(event []byte) (device string, ok bool) {
	head, _, _ := bytes.Cut(event, []byte{0})
	path, added := bytes.CutPrefix(head, []byte("add@"))
	return string(path), added && bytes.HasPrefix(path, []byte("/devices/system/cpu/cpu"))
}
