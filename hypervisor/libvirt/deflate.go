package libvirt

import (
	"time"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// told is what a guest was given when it last told its statistics, in bytes.
type told struct {
	at      time.Time
	actual  int64
	plugged int64 // of it, in virtio-mem devices
}

// withoutBalloon returns what the guest's kernel manages outside the balloon.
// A kernel that may take pages back from its balloon when it runs out of memory
// goes on counting them as its own, so their number is taken off: as of when
// the figures were told, which is before the balloon may have moved again.
func (dm *domain) withoutBalloon(c hypervisor.Counters, plugged int64) int64 {
	dm.mu.Lock()
	defer dm.mu.Unlock()
	if dm.told.actual == 0 || !c.MemoryAt.Equal(dm.told.at) {
		dm.told = told{at: c.MemoryAt, actual: c.MemoryActual, plugged: plugged}
	}
	inBalloon := dm.def.booted - (dm.told.actual - dm.told.plugged)
	return max(0, c.MemoryAvailable-max(0, inBalloon))
}
