//go:build linux

// Package guestinit is what every init of gnomon's own guests needs: mounts,
// kernel modules, virtio ports, what memory there is, power-off. It is the counterpart, inside the
// guest, of package appliance.
package guestinit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moduleDir is where the appliance puts the modules, named in load order.
const moduleDir = "/modules"

// IsInit reports whether this process is a guest's init.
func IsInit() bool { return os.Getpid() == 1 }

// Setup mounts /proc, /sys, /dev and /tmp and loads the appliance's modules. It
// goes on past a module that fails and returns what failed.
func Setup() error {
	mounts := []struct{ kind, on string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.on, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.on, err)
		}
		if err := unix.Mount(m.kind, m.on, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.on, err)
		}
	}
	return loadModules(moduleDir)
}

func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	slices.Sort(files)
	var errs []error
	for _, f := range files {
		if err := loadModule(f); err != nil {
			errs = append(errs, err)
			continue
		}
		// It is in the kernel now; the file only costs memory.
		os.Remove(f)
	}
	return errors.Join(errs...)
}

// loadModule loads one module. ENOENT from the kernel means that a symbol is
// missing: a dependency was not loaded.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
	}
	return nil
}

// FindPort returns the device of the virtio-serial port of that name. The
// kernel learns the names a moment after the driver loads, so it waits for up
// to the given time.
func FindPort(name string, wait time.Duration) (string, error) {
	const pause = 5 * time.Millisecond
	for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
		if dev, ok := findPort("/sys/class/virtio-ports", name); ok {
			return dev, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("find virtio port %s: none has this name after %v", name, wait)
		}
	}
}

func findPort(class, name string) (string, bool) {
	files, _ := filepath.Glob(filepath.Join(class, "*", "name"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(f)), true
		}
	}
	return "", false
}

// Parameter returns the value of key=value on the kernel's command line. Inits
// of ours use keys with a prefix of their own, as gnomon.seed=7.
func Parameter(key string) (string, bool) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	return parameter(string(b), key)
}

func parameter(cmdline, key string) (string, bool) {
	for _, word := range strings.Fields(cmdline) {
		if k, v, ok := strings.Cut(word, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// Available returns the kernel's estimate of what can be used without
// swapping, in bytes; 0 where it cannot be read.
func Available() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// PowerOff syncs and switches the guest off. It returns only on failure.
func PowerOff() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	return nil
}
