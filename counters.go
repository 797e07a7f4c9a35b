package gnomon

import "time"

// Unlimited is the amount that stands for "no limit is set".
const Unlimited = int64(-1)

// UnboundedCapacity stands for a host's capacity that neither the machine nor
// the operator tells: large enough never to bind, small enough to add up.
const UnboundedCapacity = int64(1) << 50

// Limits are a VM's limits as found, per resource; Unlimited where none is set.
type Limits [NumResources]int64

// Counters are a VM's counters at one instant. Those that grow only are since
// the VM started.
type Counters struct {
	VM VMID
	At time.Time

	// Known is the set of resources that the fields below tell of.
	Known ResourceSet

	VCPUs   int
	CPUTime time.Duration // run time of all vCPUs
	CPUWait time.Duration // run-queue wait of all vCPUs, throttling included

	MemoryActual    int64 // bytes the guest has been given (balloon)
	MemoryAvailable int64 // bytes the guest kernel manages
	MemoryUsable    int64 // bytes the guest could use without swapping
	SwapIn, SwapOut int64 // bytes
	MajorFaults     int64
	MemoryAt        time.Time // when the guest last told; zero if never

	DiskBytes    int64         // read and written
	DiskRequests int64         // read and written
	DiskTime     time.Duration // summed over requests, waiting included

	NetworkBytes   int64 // received and sent
	NetworkDrops   int64 // by the shaper
	NetworkBacklog int64 // bytes queued in the shaper now

	// Allocation is the limit in force per resource; Unlimited where none is.
	Allocation Limits
}
