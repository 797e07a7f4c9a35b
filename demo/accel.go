package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// The time a trial boot may take. A guest under KVM boots in about a second;
// one that takes this long under it spins.
const (
	kvmTrial = 20 * time.Second
	tcgTrial = 90 * time.Second
)

// machineSpeed is what a trial boot found out.
type machineSpeed struct {
	accel      string
	why        string
	iterations int64 // of the CPU load, per work item
}

// tryAccel boots a guest, alone on the machine, to find what acceleration
// works and how fast a vCPU is. That /dev/kvm exists proves nothing: some
// virtual machines have one under which no stock kernel boots.
func tryAccel(ctx context.Context, m *machines, image appliance.Image, want string) (machineSpeed, error) {
	if want != "tcg" {
		speed, err := tryKVM(ctx, m, image)
		if err == nil {
			return speed, nil
		}
		if want == "kvm" || ctx.Err() != nil {
			return speed, err
		}
		speed, tcgErr := trial(ctx, m, image, "tcg", tcgTrial)
		speed.why = err.Error()
		return speed, tcgErr
	}
	speed, err := trial(ctx, m, image, "tcg", tcgTrial)
	speed.why = "as asked"
	return speed, err
}

func tryKVM(ctx context.Context, m *machines, image appliance.Image) (machineSpeed, error) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return machineSpeed{}, errors.New("there is no /dev/kvm")
	}
	speed, err := trial(ctx, m, image, "kvm", kvmTrial)
	if err != nil {
		return speed, fmt.Errorf("no guest boots under KVM: %w", err)
	}
	speed.why = "a guest booted under it"
	return speed, nil
}

func trial(ctx context.Context, m *machines, image appliance.Image, accel string, limit time.Duration) (machineSpeed, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	g, err := m.boot(ctx, guestSpec{name: namePrefix + "trial", accel: accel, image: image})
	if err != nil {
		return machineSpeed{}, err
	}
	r, err := g.await(ctx, workload.Calibrated)
	if err := errors.Join(err, g.destroy()); err != nil {
		return machineSpeed{}, err
	}
	if r.Iterations == 0 {
		return machineSpeed{}, errors.New("the guest could not measure its speed")
	}
	return machineSpeed{accel: accel, iterations: r.Iterations}, nil
}
