package shadow

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon/appliance"
)

const kvmDevice = "/dev/kvm"

// ProbeAccel chooses the acceleration for shadows: "kvm" if a shadow's guest
// really answers under it within the time-out, else "tcg", with the reason in
// either case. That /dev/kvm exists proves little: it may be closed to those who
// should open it, or belong to a KVM that hangs stock kernels.
func ProbeAccel(ctx context.Context, applianceDir string, timeout time.Duration) (accel, why string) {
	if _, err := os.Stat(kvmDevice); err != nil {
		return "tcg", "this machine has no " + kvmDevice
	}
	took, err := tryBoot(ctx, applianceDir, "kvm", timeout)
	if err != nil {
		return "tcg", "no guest answers under KVM: " + err.Error()
	}
	return "kvm", fmt.Sprintf("a guest answered under KVM after %v", took.Round(time.Millisecond))
}

// tryBoot makes a template, and returns how long that took.
func tryBoot(ctx context.Context, applianceDir, accel string, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no hello within %v", timeout))
	defer cancel()
	dir, err := os.MkdirTemp("", "gnomon-probe-*")
	if err != nil {
		return 0, fmt.Errorf("make probe directory: %w", err)
	}
	defer os.RemoveAll(dir)
	l, err := NewLauncher(Options{Appliance: applianceDir, RunDir: dir, Accel: accel, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	img, err := appliance.Open(applianceDir)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	t, err := l.freeze(ctx, img, "")
	if err != nil {
		return 0, err
	}
	t.close()
	return time.Since(began), nil
}
