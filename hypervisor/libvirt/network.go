package libvirt

import (
	"sync"

	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/shaper"
)

// traffic counts what a domain's interfaces carried. The host's own counters
// include what the guest sent and the shaper then dropped; this does not.
type traffic struct {
	mu   sync.Mutex
	taps map[string]*flow
}

type flow struct {
	up     int64        // bytes the guest sent that got through
	last   shaper.Stats // as last seen
	shaped bool
}

// count adds what passed since the last call and returns the sum of all bytes,
// both directions.
func (t *traffic) count(taps []string, stats map[string]shaper.Stats) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taps == nil {
		t.taps = make(map[string]*flow, len(taps))
	}
	sum := int64(0)
	for _, tap := range taps {
		f := t.taps[tap]
		if f == nil {
			f = new(flow)
			t.taps[tap] = f
		}
		if st, ok := stats[tap]; ok {
			f.see(st)
		}
		sum += f.last.Received + f.up
	}
	return sum
}

func (f *flow) see(st shaper.Stats) {
	shaped := st.Rate != shaper.Unlimited
	if st.Sent < f.last.Sent {
		return // read before the last one, by another caller
	}
	if shaped && f.shaped && st.Passed >= f.last.Passed {
		f.up += st.Passed - f.last.Passed
	} else {
		f.up += st.Sent - f.last.Sent
	}
	f.last, f.shaped = st, shaped
}

// setNetwork gives each interface an even part of the rate.
func (d *Driver) setNetwork(dm *domain, amount int64) (int64, error) {
	// Counted up to the change, and from it on, for what is dropped meanwhile.
	if _, err := d.countTraffic(dm); err != nil {
		return 0, err
	}
	for i, tap := range dm.def.taps {
		part := hypervisor.Unlimited
		if amount != hypervisor.Unlimited {
			part = max(split(amount, i, len(dm.def.taps)), 1)
		}
		if _, err := d.shape.Set(tap, part); err != nil {
			return 0, err
		}
	}
	stats, err := d.countTraffic(dm)
	if err != nil {
		return 0, err
	}
	limit, _, _ := shaped(dm.def.taps, stats)
	return limit, nil
}

func (d *Driver) countTraffic(dm *domain) (map[string]shaper.Stats, error) {
	stats, err := d.shape.Stats(dm.def.taps...)
	if err != nil {
		return nil, err
	}
	dm.traffic.count(dm.def.taps, stats)
	return stats, nil
}

// networkLimit returns the sum of the interfaces' rates; Unlimited if any of
// them has none.
func (d *Driver) networkLimit(dm *domain) (int64, error) {
	if len(dm.def.taps) == 0 {
		return hypervisor.Unlimited, nil
	}
	stats, err := d.shape.Stats(dm.def.taps...)
	if err != nil {
		return 0, err
	}
	sum, _, _ := shaped(dm.def.taps, stats)
	return sum, nil
}

// shaped sums up what the shapers of the taps tell.
func shaped(taps []string, stats map[string]shaper.Stats) (limit, drops, backlog int64) {
	for _, tap := range taps {
		st, ok := stats[tap]
		drops += st.Drops
		backlog += st.Backlog
		if !ok || st.Rate == shaper.Unlimited || limit == hypervisor.Unlimited {
			limit = hypervisor.Unlimited
		} else {
			limit += st.Rate
		}
	}
	return limit, drops, backlog
}
