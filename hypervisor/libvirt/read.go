package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/shaper"
)

// patience is how long one domain may take.
const patience = 5 * time.Second

// readers is how many domains are asked at once. libvirt answers no more than
// five calls of one connection at a time; the rest is left to Apply.
const readers = 3

// Read returns the counters of the given VMs, in the order given. Each is asked
// for by a call of its own: a dying one cannot fail the others, and each gets
// the time of its own reading. One that is gone or whose hypervisor does not
// answer is left out; only if none can be read is there an error.
func (d *Driver) Read(ctx context.Context, ids []gnomon.VMID) ([]hypervisor.Counters, error) {
	taps, err := d.tapStats(ids)
	if err != nil {
		return nil, err
	}
	results := make([]hypervisor.Counters, len(ids))
	failed := make([]error, len(ids))
	slots := make(chan struct{}, readers)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i], failed[i] = d.read(ctx, id, taps)
		})
	}
	wg.Wait()
	out := results[:0]
	var errs []error
	for i := range ids {
		switch err := failed[i]; {
		case err == nil:
			out = append(out, results[i])
		case errors.Is(err, hypervisor.ErrGone):
		case errors.Is(err, ErrUnavailable):
			return nil, err
		default:
			errs = append(errs, fmt.Errorf("read VM %s: %w", ids[i], err))
		}
	}
	if len(out) == 0 && len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// tapStats reads the shapers of all known domains at once.
func (d *Driver) tapStats(ids []gnomon.VMID) (map[string]shaper.Stats, error) {
	var taps []string
	d.mu.Lock()
	for _, id := range ids {
		if uuid, err := parseUUID(id); err == nil && d.domains[uuid] != nil {
			taps = append(taps, d.domains[uuid].def.taps...)
		}
	}
	d.mu.Unlock()
	if len(taps) == 0 {
		return nil, nil
	}
	return d.shape.Stats(taps...)
}

func (d *Driver) read(ctx context.Context, id gnomon.VMID, taps map[string]shaper.Stats) (hypervisor.Counters, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dm, err := d.domainOf(ctx, id)
	if err != nil {
		return hypervisor.Counters{}, err
	}
	record, err := d.stats(ctx, dm)
	if err != nil {
		return hypervisor.Counters{}, d.goneOr(ctx, dm.Domain, err)
	}
	if record.Dom.ID != dm.ID { // started anew
		if dm, err = d.known(ctx, record.Dom); err != nil {
			return hypervisor.Counters{}, err
		}
	}
	c := decode(record.Params)
	c.VM, c.At = id, time.Now()
	if err := d.readMemory(ctx, dm, &c); err != nil {
		return hypervisor.Counters{}, d.goneOr(ctx, dm.Domain, err)
	}
	if err := d.readCPU(dm, &c); err != nil {
		return hypervisor.Counters{}, d.goneOr(ctx, dm.Domain, fmt.Errorf("read CPU times: %w", err))
	}
	if err := d.observe(ctx, dm, &c, taps); err != nil {
		return hypervisor.Counters{}, d.goneOr(ctx, dm.Domain, err)
	}
	return c, nil
}

// domainOf returns a VM's domain, asking libvirt if nothing is kept of it.
func (d *Driver) domainOf(ctx context.Context, id gnomon.VMID) (*domain, error) {
	uuid, err := parseUUID(id)
	if err != nil {
		return nil, hypervisor.ErrGone
	}
	if dm := d.remembered(uuid); dm != nil {
		return dm, nil
	}
	return d.lookup(ctx, id)
}

// remembered returns what is kept of the domain, if anything.
func (d *Driver) remembered(uuid lv.UUID) *domain {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dm := d.domains[uuid]; dm != nil && !dm.outdated {
		return dm
	}
	return nil
}

// groups are the statistics to ask libvirt for: each costs, so only those that
// the domain has and that the kernel does not tell more cheaply.
func (dm *domain) groups() lv.DomainStatsTypes {
	groups := lv.DomainStatsBalloon
	if dm.cpu == (cpuController{}) {
		groups |= lv.DomainStatsVCPU
	}
	if dm.def.hasDisk {
		groups |= lv.DomainStatsBlock
	}
	if dm.def.hasNIC && len(dm.def.taps) == 0 {
		groups |= lv.DomainStatsInterface
	}
	return groups
}

// stats asks for a domain's statistics. Its lock can be held for long, by a
// migration or another change: then there is only what libvirt knows without
// asking QEMU, once waiting for the lock was in vain.
func (d *Driver) stats(ctx context.Context, dm *domain) (lv.DomainStatsRecord, error) {
	quick, err := d.ask(ctx, dm, dm.groups(), lv.ConnectGetAllDomainsStatsNowait)
	if err != nil || complete(quick.Params) {
		return quick, err
	}
	waiting, cancel := context.WithTimeout(ctx, patience/5)
	defer cancel()
	if full, err := d.ask(waiting, dm, dm.groups(), 0); err == nil {
		return full, nil
	}
	return quick, nil
}

func (d *Driver) ask(ctx context.Context, dm *domain, groups lv.DomainStatsTypes, flags lv.ConnectGetAllDomainStatsFlags) (lv.DomainStatsRecord, error) {
	flags |= lv.ConnectGetAllDomainsStatsActive
	of := dm.live
	if flags&lv.ConnectGetAllDomainsStatsNowait != 0 {
		of = nil
	}
	records, err := callOn(ctx, d, of, func(l *lv.Libvirt) ([]lv.DomainStatsRecord, error) {
		return l.ConnectGetAllDomainStats([]lv.Domain{dm.Domain}, uint32(groups), uint32(flags))
	})
	if err == nil && len(records) == 0 {
		err = hypervisor.ErrGone
	}
	if err != nil {
		return lv.DomainStatsRecord{}, err
	}
	return records[0], nil
}

// readCPU fills in the vCPUs' times, from the kernel if it tells them, and
// remembers how many vCPUs there are.
func (d *Driver) readCPU(dm *domain, c *hypervisor.Counters) (err error) {
	if dm.cpu != (cpuController{}) {
		if c.VCPUs, c.CPUTime, c.CPUWait, err = d.cpuTimes(dm); err != nil {
			return err
		}
		c.Known = c.Known.With(gnomon.CPU)
	}
	if c.VCPUs == 0 {
		c.VCPUs = dm.vcpuCount()
	}
	dm.setVCPUs(c.VCPUs)
	return nil
}

// cpuTimes reads the times where they are kept already, unless a vCPU was added
// or taken since.
func (d *Driver) cpuTimes(dm *domain) (vcpus int, ran, waited time.Duration, err error) {
	if d.opts.CPUTimes != nil {
		if n, ran, waited, ok := d.opts.CPUTimes(dm.id); ok && dm.cpu.has(n) {
			return n, ran, waited, nil
		}
	}
	return dm.cpu.readTimes()
}

// complete reports whether QEMU was asked: what its process holds is then told
// of every domain.
func complete(params []lv.TypedParam) bool {
	return slices.ContainsFunc(params, func(p lv.TypedParam) bool { return p.Field == lv.DomainStatsBalloonRss })
}

// observe fills in the limits in force and what the shapers tell.
func (d *Driver) observe(ctx context.Context, dm *domain, c *hypervisor.Counters, taps map[string]shaper.Stats) (err error) {
	if c.Allocation[gnomon.CPU], err = d.cpuLimit(ctx, dm); err != nil {
		return err
	}
	if c.Allocation[gnomon.Disk], err = d.diskLimit(ctx, dm); errors.Is(err, errHeld) {
		c.Known = c.Known.Without(gnomon.Disk)
	} else if err != nil {
		return err
	}
	return d.readTaps(dm, c, taps)
}

// readTaps fills in what the shapers tell, from taps if that was read.
func (d *Driver) readTaps(dm *domain, c *hypervisor.Counters, taps map[string]shaper.Stats) (err error) {
	c.Allocation[gnomon.Network] = hypervisor.Unlimited
	if len(dm.def.taps) == 0 {
		return nil
	}
	if _, ok := taps[dm.def.taps[0]]; !ok { // not known when all were read
		if taps, err = d.shape.Stats(dm.def.taps...); err != nil {
			return err
		}
	}
	c.Allocation[gnomon.Network], c.NetworkDrops, c.NetworkBacklog = shaped(dm.def.taps, taps)
	c.NetworkBytes = dm.traffic.count(dm.def.taps, taps)
	c.Known = c.Known.With(gnomon.Network)
	return nil
}

// decode sums the statistics of one domain up. Those not told leave their
// resource unknown. libvirt counts memory in KiB and times in nanoseconds.
func decode(params []lv.TypedParam) hypervisor.Counters {
	var c hypervisor.Counters
	var available, usable bool
	for _, p := range params {
		group, rest, _ := strings.Cut(p.Field, ".")
		v := number(p.Value)
		switch group {
		case "vcpu":
			decodeVCPU(&c, rest, v)
		case "balloon":
			available = available || rest == "available"
			usable = usable || rest == "usable"
			decodeBalloon(&c, rest, v)
		case "block":
			decodeBlock(&c, rest, v)
		case "net":
			if strings.HasSuffix(rest, ".rx.bytes") || strings.HasSuffix(rest, ".tx.bytes") {
				c.NetworkBytes += v
				c.Known = c.Known.With(gnomon.Network)
			}
		}
	}
	if available && usable && !c.MemoryAt.IsZero() {
		c.Known = c.Known.With(gnomon.Memory)
	}
	return c
}

func decodeVCPU(c *hypervisor.Counters, field string, v int64) {
	if field == "current" {
		c.VCPUs = int(v)
		return
	}
	_, field, _ = strings.Cut(field, ".") // the vCPU's number
	switch field {
	case "time":
		c.CPUTime += time.Duration(v)
		c.Known = c.Known.With(gnomon.CPU)
	case "delay":
		c.CPUWait += time.Duration(v)
	}
}

func decodeBalloon(c *hypervisor.Counters, field string, v int64) {
	switch field {
	case "current":
		c.MemoryActual = v << 10
	case "available":
		c.MemoryAvailable = v << 10
	case "usable":
		c.MemoryUsable = v << 10
	case "swap_in":
		c.SwapIn = v << 10
	case "swap_out":
		c.SwapOut = v << 10
	case "major_fault":
		c.MajorFaults = v
	case "last-update":
		if v > 0 {
			c.MemoryAt = time.Unix(v, 0)
		}
	}
}

func decodeBlock(c *hypervisor.Counters, field string, v int64) {
	_, field, _ = strings.Cut(field, ".") // the disk's number
	switch field {
	case "rd.bytes", "wr.bytes":
		c.DiskBytes += v
		c.Known = c.Known.With(gnomon.Disk)
	case "rd.reqs", "wr.reqs":
		c.DiskRequests += v
	case "rd.times", "wr.times":
		c.DiskTime += time.Duration(v)
	}
}

// number returns a parameter's value; strings count as 0.
func number(v lv.TypedParamValue) int64 {
	switch n := v.I.(type) {
	case int32:
		return int64(n)
	case uint32:
		return int64(n)
	case int64:
		return n
	case uint64:
		return int64(n)
	case float64:
		return int64(n)
	}
	return 0
}
