package simulated

import (
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Demand is what a VM wants at a time since it was added, in the resource's
// unit: for memory the bytes in use, for the others a rate. Nil wants nothing.
type Demand func(since time.Duration) int64

// Constant wants the same amount always.
func Constant(amount int64) Demand { return func(time.Duration) int64 { return amount } }

// Spec describes a VM.
type Spec struct {
	ID       gnomon.VMID
	Name     string // the ID if empty
	Account  string
	ShadowOf gnomon.VMID

	VCPUs  int   // 1 if zero
	Memory int64 // maximum, in bytes; 1 GiB if zero

	// Most is how many vCPUs it can have, VCPUs if zero. Stiff is a guest that
	// neither brings vCPUs online nor lets go of them.
	Most  int
	Stiff bool

	// Limits are those in force when the VM starts; zero is none, and for
	// memory the maximum.
	Limits gnomon.Resources

	// Own are the limits that it carries as its own when it starts, if any.
	Own *hypervisor.Original

	// NoBalloon, NoDisk and NoNetwork tell what the VM lacks.
	NoBalloon, NoDisk, NoNetwork bool

	Demand [gnomon.NumResources]Demand

	// MaxBacklog bounds the work that waits, as the time it took to arrive at
	// the present demand; what comes on top is given up, as by a client that
	// times out. Zero is without bound.
	MaxBacklog time.Duration
}

// Totals is the truth about a VM, in unit-seconds since it was added, which the
// hypervisor of a real host does not know.
type Totals struct {
	Demanded [gnomon.NumResources]float64
	Served   [gnomon.NumResources]float64
	GivenUp  [gnomon.NumResources]float64 // beyond MaxBacklog

	// Short is for how long less was served in a step than was wanted in it.
	Short [gnomon.NumResources]time.Duration
}

// kernelMemory is the part of a guest's memory that its kernel keeps from
// "available": one in 25.
const kernelMemory = 25

// vm is a VM's state.
type vm struct {
	spec    Spec
	added   time.Time
	paused  bool
	limited hypervisor.Limits // memory's is unused
	size    int64             // memory the guest has
	target  int64             // memory it was told to have
	own     *hypervisor.Original

	backlog [gnomon.NumResources]float64 // in unit-seconds
	total   Totals

	waited    time.Duration
	swapped   float64 // bytes now in swap
	in, out   float64 // bytes swapped since the start
	diskTime  time.Duration
	queued    float64 // bytes in the shaper
	drops     float64
	told      memoryStats
	nextStats time.Time
}

// memoryStats is what the guest told last of its memory.
type memoryStats struct {
	at                time.Time
	available, usable int64
	in, out           float64
}

// AddVM starts a VM now.
func (d *Driver) AddVM(spec Spec) error {
	if spec.Name == "" {
		spec.Name = string(spec.ID)
	}
	if spec.VCPUs == 0 {
		spec.VCPUs = 1
	}
	if spec.Memory == 0 {
		spec.Memory = 1 << 30
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(spec.ID) != nil {
		return fmt.Errorf("add VM %s: it is there already", spec.ID)
	}
	v := &vm{spec: spec, own: spec.Own, added: d.now, nextStats: d.now.Add(d.opts.StatsPeriod)}
	for r := range gnomon.AllResources() {
		if v.limited[r] = spec.Limits[r]; v.limited[r] == 0 {
			v.limited[r] = hypervisor.Unlimited
		}
	}
	if v.size = spec.Limits[gnomon.Memory]; v.size == 0 {
		v.size = spec.Memory
	}
	v.target = v.size
	d.vms = append(d.vms, v)
	d.tell(hypervisor.Started, v)
	return nil
}

// RemoveVM stops a VM.
func (d *Driver) RemoveVM(id gnomon.VMID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.vms, func(v *vm) bool { return v.spec.ID == id })
	if i < 0 {
		return hypervisor.ErrGone
	}
	v := d.vms[i]
	d.vms = slices.Delete(d.vms, i, i+1)
	d.tell(hypervisor.Stopped, v)
	close(d.stepped) // whoever waits for its memory need not any more
	d.stepped = make(chan struct{})
	return nil
}

// SetPaused suspends a VM or lets it go on.
func (d *Driver) SetPaused(id gnomon.VMID, paused bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.find(id)
	if v == nil {
		return hypervisor.ErrGone
	}
	if v.paused == paused {
		return nil
	}
	v.paused = paused
	if paused {
		d.tell(hypervisor.Suspended, v)
	} else {
		d.tell(hypervisor.Resumed, v)
	}
	return nil
}

// Totals returns the truth about a VM.
func (d *Driver) Totals(id gnomon.VMID) (Totals, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.find(id)
	if v == nil {
		return Totals{}, hypervisor.ErrGone
	}
	return v.total, nil
}

func (s Spec) why(r gnomon.Resource) string {
	switch {
	case r == gnomon.Memory && s.NoBalloon:
		return "no virtio balloon"
	case r == gnomon.Disk && s.NoDisk:
		return "no disk that can be written"
	case r == gnomon.Network && s.NoNetwork:
		return "no interface"
	}
	return ""
}

func (s Spec) limits() gnomon.ResourceSet {
	var set gnomon.ResourceSet
	for r := range gnomon.AllResources() {
		if s.why(r) == "" {
			set = set.With(r)
		}
	}
	return set
}

func (v *vm) machine() hypervisor.Machine {
	m := hypervisor.Machine{
		ID: v.spec.ID, Name: v.spec.Name, ShadowOf: v.spec.ShadowOf, Account: v.spec.Account,
		VCPUs: v.spec.VCPUs, Online: v.spec.VCPUs, MaxVCPUs: max(v.spec.Most, v.spec.VCPUs),
		Paused: v.paused, Limits: v.spec.limits(), Own: v.own,
	}
	m.Original.VCPUs = v.spec.VCPUs
	m.Max[gnomon.CPU] = int64(v.spec.VCPUs) * 1000
	m.Max[gnomon.Memory] = v.spec.Memory
	m.Memory = v.size
	for r := range gnomon.AllResources() {
		m.Why[r] = v.spec.why(r)
		m.Original.Limits[r] = v.limit(r)
	}
	return m
}

// limit returns the limit in force.
func (v *vm) limit(r gnomon.Resource) int64 {
	switch {
	case r == gnomon.Memory:
		return v.size
	case v.spec.why(r) != "":
		return hypervisor.Unlimited
	}
	if r == gnomon.CPU && v.limited[r] != hypervisor.Unlimited && v.spec.Most > 0 {
		return min(v.limited[r], int64(v.spec.VCPUs)*1000)
	}
	return v.limited[r]
}

// setVCPUs plugs vCPUs or takes them back, as the guest lets it.
func (v *vm) setVCPUs(terms hypervisor.Terms) error {
	want := min(terms.VCPUs, max(v.spec.Most, v.spec.VCPUs))
	if want == v.spec.VCPUs || want < v.spec.VCPUs && !terms.Spare {
		return nil
	}
	if v.spec.Stiff {
		return fmt.Errorf("set vCPUs of %s to %d: %w", v.spec.Name, want, hypervisor.ErrRefused)
	}
	v.spec.VCPUs = want
	return nil
}

// hold leaves the guest at the size it has, because of cause.
func (v *vm) hold(cause error) (int64, error) {
	want := v.target
	v.target = v.size
	return v.size, fmt.Errorf("limit memory of %s: the guest reached %d bytes of %d: %w", v.spec.Name, v.size, want, cause)
}

func (v *vm) counters(now time.Time) hypervisor.Counters {
	c := hypervisor.Counters{
		VM: v.spec.ID, At: now, VCPUs: v.spec.VCPUs,
		Known:        gnomon.SetOf(gnomon.CPU),
		CPUTime:      time.Duration(v.total.Served[gnomon.CPU] * float64(time.Second) / 1000),
		CPUWait:      v.waited,
		MemoryActual: v.size,
	}
	if !v.told.at.IsZero() && !v.spec.NoBalloon {
		c.Known = c.Known.With(gnomon.Memory)
		c.MemoryAt, c.MemoryAvailable, c.MemoryUsable = v.told.at, v.told.available, v.told.usable
		c.SwapIn, c.SwapOut = int64(v.told.in), int64(v.told.out)
		c.MajorFaults = c.SwapIn / page
	}
	if !v.spec.NoDisk {
		c.Known = c.Known.With(gnomon.Disk)
		c.DiskBytes = int64(v.total.Served[gnomon.Disk])
		c.DiskRequests = c.DiskBytes / diskRequest
		c.DiskTime = v.diskTime
	}
	if !v.spec.NoNetwork {
		c.Known = c.Known.With(gnomon.Network)
		c.NetworkBytes = int64(v.total.Served[gnomon.Network])
		c.NetworkDrops, c.NetworkBacklog = int64(v.drops), int64(v.queued)
	}
	for r := range gnomon.AllResources() {
		c.Allocation[r] = v.limit(r)
	}
	return c
}
