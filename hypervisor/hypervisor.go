// Package hypervisor is the interface through which the host daemon sees and
// limits virtual machines. Implementations live in the folders below it and
// all pass the suite in hypervisortest.
package hypervisor

import (
	"context"
	"errors"

	"github.com/gnomon-vm/gnomon"
)

// ErrGone is returned for a VM that does not run (any more).
var ErrGone = errors.New("the VM is not running")

// ErrUnsupported is returned when a resource of a VM cannot be limited.
var ErrUnsupported = errors.New("this resource of this VM cannot be limited")

// ErrInUse is returned by Restore if all was restored but memory or vCPUs, of
// which the guest does not give up what it did not have before.
var ErrInUse = errors.New("the guest uses more than it had")

// ErrRefused is returned when the guest does not bring vCPUs online, or does not
// let go of them.
var ErrRefused = errors.New("the guest does not follow")

// Driver is one host's hypervisor. Its methods may be called concurrently. A
// driver that loses its hypervisor returns errors until it is back, reconnects
// by itself, and needs no restart.
type Driver interface {
	// Host returns what the machine has, in total.
	Host(ctx context.Context) (Host, error)

	// Machines returns the running VMs, shadows included.
	Machines(ctx context.Context) ([]Machine, error)

	// Watch delivers changes until ctx ends, then closes the channel. A Resync
	// change tells that others may have been missed: list again.
	Watch(ctx context.Context) (<-chan Change, error)

	// Read returns the counters of the given VMs. One that is gone is left
	// out; it does not fail the others.
	Read(ctx context.Context, ids []gnomon.VMID) ([]Counters, error)

	// Glance returns what the counters of one VM tell of one resource, as soon as
	// it can be had: it asks for nothing else.
	Glance(ctx context.Context, id gnomon.VMID, r gnomon.Resource) (Counters, error)

	// Apply sets one limit and returns the limit in force afterwards, as read
	// back. For memory it waits, up to ctx's deadline, until the guest has
	// followed, and returns the size reached, with an error if that is not the
	// one asked for.
	Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms Terms) (int64, error)

	// Restore undoes every limit that Apply set on the VM: each returns to
	// what original says, as Machine.Original gave it when first seen.
	Restore(ctx context.Context, id gnomon.VMID, original Original) error

	// Close releases the connection. It changes no VM.
	Close() error
}

// Host is what the machine has.
type Host struct {
	Name string

	// Total is the machine's capacity; 0 where it is not known (disk and
	// network: the operator tells).
	Total gnomon.Resources
}

// Unlimited is the amount that stands for "no limit is set".
const Unlimited = gnomon.Unlimited

// Limits are a VM's limits as found, and Counters what it has consumed. The
// core reads them too, so they belong to the vocabulary.
type (
	Limits   = gnomon.Limits
	Counters = gnomon.Counters
)

// Terms are what goes with the amount of a limit. The zero value says nothing.
type Terms struct {
	// VCPUs is how many the VM is to have at least; those it lacks are plugged, and
	// Apply waits, up to ctx's deadline, until the guest uses them, with ErrRefused
	// if it does not. With Spare those above that the VM was not started with are
	// taken back. 0 leaves their number.
	VCPUs int
	Spare bool

	// Operations is how many a second all disks of the VM may do together, reads
	// and writes, from 1; 0 leaves the limits they have of their own.
	Operations int64
}

// Original is a VM's limits as they were found.
type Original struct {
	Limits Limits `json:"limits"`
	VCPUs  int    `json:"vcpus,omitempty"` // 0 if not noted

	// Detail is how the amounts are made up, in the driver's own words; empty where
	// there is no more to tell. Where it is not of an amount, the amount counts.
	Detail string `json:"detail,omitempty"`
}

// Machine is a running VM as the hypervisor defines it.
type Machine struct {
	ID   gnomon.VMID
	Name string

	// ShadowOf is set on a shadow VM: the VM it belongs to, or Warm. The
	// driver reads it from the definition's metadata.
	ShadowOf gnomon.VMID

	// Account is the owner named in the definition's metadata, if any.
	Account string

	// VCPUs is how many it has, Online how many of them its guest uses, as far as
	// that can be told, and MaxVCPUs how many it could have.
	VCPUs, Online, MaxVCPUs int

	Paused bool

	// Max is what the definition allows at most: CPU all vCPUs it has, memory the
	// maximum. 0 where the definition sets no bound (disk, network).
	Max gnomon.Resources

	// Limits is the set of resources that Apply can change. Why tells, for each
	// of the others, why not.
	Limits gnomon.ResourceSet
	Why    [gnomon.NumResources]string

	// Memory is what the guest has now, in bytes; it is its limit too.
	Memory int64

	// Original are the limits found in the live definition now. While the guest
	// starts, and has more memory than its definition gives it only because its
	// balloon does not work yet, that of memory is what the definition says.
	Original Original

	// Own are the VM's own limits, as it carries them since a Noter noted them here
	// or on another host; nil if it carries none.
	Own *Original

	// Presence is where the host's kernel sees the VM.
	Presence Presence
}

// Presence is where the host's kernel sees a VM; empty as far as that is not
// known.
type Presence struct {
	Process int   // that runs it
	VCPUs   []int // their threads

	// Interfaces are, for each interface of the VM, those of the host whose
	// queues carry its traffic.
	Interfaces [][]int
}

// Warm is the ShadowOf of a shadow that waits for its VM.
const Warm = gnomon.VMID("warm")

// ChangeKind classifies a Change.
type ChangeKind string

// The kinds of change.
const (
	Started   ChangeKind = "started"
	Stopped   ChangeKind = "stopped"
	Suspended ChangeKind = "suspended"
	Resumed   ChangeKind = "resumed"
	Resized   ChangeKind = "resized" // its memory has another size
	Resync    ChangeKind = "resync"
)

// Change tells that something happened to a VM.
type Change struct {
	Kind ChangeKind
	VM   gnomon.VMID
	Name string
}
