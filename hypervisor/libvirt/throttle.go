package libvirt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// group is the name of the throttle group that all disks of a VM are in while
// they are limited: QEMU has the members of a group share its limits. Groups
// belong to one QEMU, so that one name does for all VMs.
const group = "gnomon"

// throttle is what QEMU limits a disk to.
type throttle struct {
	// Group names the disks that share it; empty for none.
	Group string `json:"group,omitempty"`

	// Values are libvirt's parameters by their names; those of 0 are left out.
	Values map[string]uint64 `json:"values,omitempty"`
}

// throttles are those of a VM's disks, by their targets.
type throttles map[string]throttle

// throttleValues are libvirt's parameters. They are always set together: it
// refuses some of them while others stay as they are.
var throttleValues = []string{
	lv.DomainBlockIotuneTotalBytesSec, lv.DomainBlockIotuneTotalBytesSecMax, lv.DomainBlockIotuneTotalBytesSecMaxLength,
	lv.DomainBlockIotuneReadBytesSec, lv.DomainBlockIotuneReadBytesSecMax, lv.DomainBlockIotuneReadBytesSecMaxLength,
	lv.DomainBlockIotuneWriteBytesSec, lv.DomainBlockIotuneWriteBytesSecMax, lv.DomainBlockIotuneWriteBytesSecMaxLength,
	lv.DomainBlockIotuneTotalIopsSec, lv.DomainBlockIotuneTotalIopsSecMax, lv.DomainBlockIotuneTotalIopsSecMaxLength,
	lv.DomainBlockIotuneReadIopsSec, lv.DomainBlockIotuneReadIopsSecMax, lv.DomainBlockIotuneReadIopsSecMaxLength,
	lv.DomainBlockIotuneWriteIopsSec, lv.DomainBlockIotuneWriteIopsSecMax, lv.DomainBlockIotuneWriteIopsSecMaxLength,
	lv.DomainBlockIotuneSizeIopsSec,
}

// shared is the throttle by which a VM's disks have bytes and operations per
// second together; of operations 0 is no limit.
func shared(amount, operations int64) throttle {
	if amount == hypervisor.Unlimited {
		return throttle{}
	}
	t := throttle{Group: group, Values: map[string]uint64{}}
	t.limit(lv.DomainBlockIotuneTotalBytesSec, amount)
	if operations > 0 {
		t.limit(lv.DomainBlockIotuneTotalIopsSec, operations)
	}
	return t
}

// limit sets a rate. What is not used of it may be used later, up to what a
// second allows: so a blip is not held up before anybody can react to it, and
// the mean is the rate.
func (t throttle) limit(name string, rate int64) {
	t.Values[name], t.Values[name+"_max"], t.Values[name+"_max_length"] = uint64(rate), uint64(rate), 1
}

// operations returns the part of a throttle that limits operations.
func (t throttle) operations() throttle {
	part := throttle{Group: t.Group, Values: map[string]uint64{}}
	for name, v := range t.Values {
		if strings.Contains(name, "iops") {
			part.Values[name] = v
		}
	}
	return part
}

// limited returns throttles by which the disks have an amount together, and
// operations unless that is 0.
func (all throttles) limited(amount, operations int64) (throttles, error) {
	own := all.byGroup()
	want, keep := make(throttles, len(all)), false
	for disk, t := range all {
		want[disk] = shared(amount, operations)
		keep = keep || operations == 0 && t.Group != group && len(t.operations().Values) > 0
	}
	if !keep {
		return want, nil
	}
	n := len(own)
	if amount != hypervisor.Unlimited && amount < int64(n) {
		return nil, fmt.Errorf("%d bytes/s cannot be split over %d disks", amount, n)
	}
	for i, disks := range own {
		part := all[disks[0]].operations()
		if amount != hypervisor.Unlimited {
			part.limit(lv.DomainBlockIotuneTotalBytesSec, split(amount, i, n))
		}
		for _, disk := range disks {
			want[disk] = part
		}
	}
	return want, nil
}

// byGroup returns the disks that share a throttle, each with those it shares it
// with, in order.
func (all throttles) byGroup() (groups [][]string) {
	at := map[string]int{}
	for _, disk := range slices.Sorted(maps.Keys(all)) {
		name := all[disk].Group
		i, known := at[name]
		if name == "" || !known {
			i = len(groups)
			groups = append(groups, nil)
		}
		at[name] = i
		groups[i] = append(groups[i], disk)
	}
	return groups
}

func decodeThrottle(params []lv.TypedParam) throttle {
	t := throttle{Values: map[string]uint64{}}
	for _, p := range params {
		if name, ok := p.Value.I.(string); ok && p.Field == lv.DomainBlockIotuneGroupName {
			t.Group = name
		} else if v := number(p.Value); v > 0 {
			t.Values[p.Field] = uint64(v)
		}
	}
	if len(t.Values) == 0 {
		return throttle{} // a group without a limit is none
	}
	return t
}

func (t throttle) params() []lv.TypedParam {
	var params []lv.TypedParam
	for _, name := range throttleValues {
		params = append(params, lv.TypedParam{Field: name, Value: *lv.NewTypedParamValueUllong(t.Values[name])})
	}
	if t.Group != "" {
		params = append(params, lv.TypedParam{Field: lv.DomainBlockIotuneGroupName, Value: *lv.NewTypedParamValueString(t.Group)})
	}
	return params
}

func (t throttle) equal(o throttle) bool {
	return t.Group == o.Group && maps.Equal(t.Values, o.Values)
}

// rate returns the bytes per second a throttle lets through, 0 for no limit.
func (t throttle) rate() int64 {
	read, write := t.Values[lv.DomainBlockIotuneReadBytesSec], t.Values[lv.DomainBlockIotuneWriteBytesSec]
	if read > 0 && write > 0 {
		return int64(read + write)
	}
	return int64(t.Values[lv.DomainBlockIotuneTotalBytesSec])
}

// of returns the throttles of those disks.
func (all throttles) of(disks []string) throttles {
	some := make(throttles, len(disks))
	for _, disk := range disks {
		some[disk] = all[disk]
	}
	return some
}

// amount returns what the disks may do together, in bytes per second; Unlimited
// if any has no limit.
func (all throttles) amount() int64 {
	sum := int64(0)
	for _, disks := range all.byGroup() {
		rate := all[disks[0]].rate()
		if rate == 0 {
			return hypervisor.Unlimited
		}
		sum += rate
	}
	if sum == 0 {
		return hypervisor.Unlimited
	}
	return sum
}
