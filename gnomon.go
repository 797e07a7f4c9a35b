// Package gnomon is the vocabulary of the system: resources and amounts of
// them, virtual machines, samples of what they use, the events a host's broker
// is told and the actions, answers and decisions it gives back.
//
// It imports nothing of the project, does no I/O and reads no clock. Every
// other package speaks in these types.
package gnomon

import (
	"time"
)

// VMID identifies a virtual machine for its whole life. On libvirt it is the
// domain's UUID in its canonical text form, so it survives a rename.
type VMID string

// VM is an active VM as the broker knows it.
type VM struct {
	ID      VMID   `json:"id"`
	Name    string `json:"name"`
	Account string `json:"account,omitempty"`

	// Floor and Ceiling bound the allocation, in each resource's unit. They
	// hold for the resources in Limits only.
	Floor   Resources `json:"floor"`
	Ceiling Resources `json:"ceiling"`

	// Limits is the set of resources whose allocation the hypervisor can
	// change for this VM. The others are watched, never acted on.
	Limits ResourceSet `json:"limits"`
}

// Sample is what one VM used over one interval that ended at At.
type Sample struct {
	VM       VMID          `json:"vm"`
	At       time.Time     `json:"at"`
	Interval time.Duration `json:"interval"`

	// Urgent marks a sample that was taken ahead of its time, since the VM began
	// to be short of something. It tells of that resource alone, over an interval
	// of its own: that of the next sample begins where the last one's that was
	// not urgent ended.
	Urgent bool `json:"urgent,omitempty"`

	// Known is the set of resources this sample has figures for.
	Known ResourceSet `json:"known"`

	// Usage is what the VM got: mean rate over the interval, except memory,
	// which is the amount in use at its end.
	Usage Resources `json:"usage"`

	// Demand is what it would have taken had nothing limited it; Demand is
	// at least Usage.
	Demand Resources `json:"demand"`

	// Operations is how many reads and writes its disks did per second. They are
	// part of the usage of Disk as far as small ones count as larger.
	Operations int64 `json:"operations,omitempty"`

	// Allocation is the limit observed at the end of the interval.
	Allocation Resources `json:"allocation"`

	// Starved is how much of the interval the VM wanted more than it got. CPU:
	// run-queue wait summed over its vCPUs, so it can exceed Interval. Memory:
	// the interval if under 5 % was usable or the guest swapped. Disk and
	// network: the time at the limit with work queued.
	Starved [NumResources]time.Duration `json:"starved"`
}

// Policy is how the broker treats one VM.
type Policy struct {
	// Shadow is whether a shadow's proposals are heeded. Without it the VM is
	// served by the standard path alone.
	Shadow bool `json:"shadow"`

	// HeadroomPercent is what the standard path allocates above demand, in
	// percent of the demand, 0 to 1000.
	HeadroomPercent int64 `json:"headroom_percent"`

	// Hold is for how long demand must have stayed low before an allocation
	// shrinks to the highest demand seen in that time plus headroom.
	Hold time.Duration `json:"hold"`

	// Release is whether an allocation may follow a forecast below what the
	// standard path alone would hold, as long as the forecast proves right.
	Release bool `json:"release,omitempty"`

	// Adopt is whether a limit that somebody else set, other than of memory, is
	// left as it is: the resource is then not limited any more.
	Adopt bool `json:"adopt,omitempty"`

	// Priority decides between VMs whose reservations compete: the higher is
	// served first, the lower gives first; 0 to 100.
	Priority int64 `json:"priority,omitempty"`
}

// Proposal is what a shadow's agent asks for after one sample: per resource, a
// forecast and, where the forecast exceeds what is in use by more than the
// threshold, the level it wants made ready. It is untrusted input.
type Proposal struct {
	VM      VMID      `json:"vm"`
	Session uint64    `json:"session"`
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Wants   []Want    `json:"wants"`
}

// APISession is the session of requests that come over the host's API instead
// of from an agent. It needs no Attached and is never void.
const APISession = uint64(0)

// Want is one resource's part of a Proposal. Amounts are in the resource's
// unit.
type Want struct {
	Resource Resource `json:"resource"`

	// Low, Median and High are forecast quantiles of demand: the largest value
	// each takes at any step of the horizon.
	Low    int64 `json:"low"`
	Median int64 `json:"median"`
	High   int64 `json:"high"`

	// Level is the total allocation to have ready, 0 for no request.
	Level int64 `json:"level"`

	// Enough is the total allocation that is expected to do until the next
	// proposal, 0 if nothing is said of that.
	Enough int64 `json:"enough,omitempty"`

	// NeedIn is how long from At until demand is expected to need Level.
	NeedIn time.Duration `json:"need_in"`

	// Lifetime is how long from At the reservation may stand.
	Lifetime time.Duration `json:"lifetime"`

	// Model names the forecasting model, for explanation only.
	Model string `json:"model,omitempty"`
}

// Verdict is the outcome of a request.
type Verdict string

// The verdicts.
const (
	Granted Verdict = "granted"
	Partial Verdict = "partial"
	Denied  Verdict = "denied"
)

// Answer is the broker's reply to a Proposal or a Demanded event. Nothing waits
// for it.
type Answer struct {
	VM      VMID    `json:"vm"`
	Session uint64  `json:"session"`
	Seq     uint64  `json:"seq"`
	Grants  []Grant `json:"grants"`
}

// Grant is one resource's part of an Answer.
type Grant struct {
	Resource    Resource  `json:"resource"`
	Asked       int64     `json:"asked"`
	Got         int64     `json:"got"`
	Verdict     Verdict   `json:"verdict"`
	Reason      string    `json:"reason"`
	Reservation uint64    `json:"reservation,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
}

// Event is one thing the broker is told. Exactly one of its pointers is set.
// The stream of events is the flight recorder: replayed, it gives the same
// decisions.
type Event struct {
	At time.Time `json:"at"`

	Started  *Started       `json:"started,omitempty"`
	Capacity *Capacity      `json:"capacity,omitempty"`
	Quota    *Quota         `json:"quota,omitempty"`
	Found    *Found         `json:"found,omitempty"`
	Gone     *Gone          `json:"gone,omitempty"`
	Policy   *PolicyChanged `json:"policy,omitempty"`
	Sampled  *Sample        `json:"sampled,omitempty"`
	Attached *Attached      `json:"attached,omitempty"`
	Detached *Detached      `json:"detached,omitempty"`
	Proposed *Proposal      `json:"proposed,omitempty"`
	Demanded *Demanded      `json:"demanded,omitempty"`
	Applied  *Applied       `json:"applied,omitempty"`
	Tick     *Tick          `json:"tick,omitempty"`
}

// Started tells that a daemon begins, and knows of nothing yet: all that was
// told before is void. It is the first event of every run.
type Started struct{}

// Capacity tells what the host may promise to its active VMs: the machine's own
// amounts times the overcommit, less what is kept for the host and the shadows.
type Capacity struct {
	Total Resources `json:"total"`
}

// Quota tells what the VMs of one account may have ahead of demand, all
// together: what is reserved for them, and what of their allocations is there
// for a forecast only. 0 is no quota. It replaces the account's earlier one.
type Quota struct {
	Account string    `json:"account,omitempty"`
	Ahead   Resources `json:"ahead"`
}

// Found tells of a VM that runs and is taken in, with its limits as observed.
type Found struct {
	VM         VM        `json:"vm"`
	Policy     Policy    `json:"policy"`
	Allocation Resources `json:"allocation"`
}

// Gone tells that a VM ended or was released.
type Gone struct {
	VM VMID `json:"vm"`
}

// PolicyChanged replaces a VM's account, policy and bounds, and the set of
// resources that may be limited.
type PolicyChanged struct {
	VM      VMID        `json:"vm"`
	Account string      `json:"account,omitempty"`
	Policy  Policy      `json:"policy"`
	Floor   Resources   `json:"floor"`
	Ceiling Resources   `json:"ceiling"`
	Limits  ResourceSet `json:"limits"`
}

// Attached tells that a VM's agent opened a session. Reservations of earlier
// sessions are void.
type Attached struct {
	VM      VMID   `json:"vm"`
	Session uint64 `json:"session"`
}

// Detached tells that an agent's session ended; its reservations die with it.
type Detached struct {
	VM      VMID   `json:"vm"`
	Session uint64 `json:"session"`
}

// Demanded is an explicit request for resources now, for one VM: reservation
// first, then the standard path. Levels are total allocations; 0 asks nothing.
type Demanded struct {
	VM     VMID      `json:"vm"`
	Seq    uint64    `json:"seq"`
	Levels Resources `json:"levels"`
}

// Applied reports the outcome of an Action. Observed is the limit read back
// from the hypervisor afterwards; it counts even if Error is set.
type Applied struct {
	Action   uint64   `json:"action"`
	VM       VMID     `json:"vm"`
	Resource Resource `json:"resource"`
	Observed int64    `json:"observed"`
	Error    string   `json:"error,omitempty"`
}

// Tick tells only that time passed.
type Tick struct{}

// Action is one limit to set on one VM. At most one action per VM and resource
// is in flight; Applied reports how it ended. IDs grow, so that a stale
// executor can be told.
type Action struct {
	ID       uint64   `json:"id"`
	VM       VMID     `json:"vm"`
	Resource Resource `json:"resource"`
	From     int64    `json:"from"`
	To       int64    `json:"to"`
	Reason   string   `json:"reason"`
}

// DecisionKind classifies a Decision.
type DecisionKind string

// The kinds of decision.
const (
	DecideReserve  DecisionKind = "reserve"  // a request was granted or partly granted
	DecideDeny     DecisionKind = "deny"     // a request was refused
	DecideExpire   DecisionKind = "expire"   // a reservation's lifetime ended
	DecideRevoke   DecisionKind = "revoke"   // a reservation gave way to another VM's demand
	DecideVoid     DecisionKind = "void"     // a reservation died with its owner's session
	DecideHandover DecisionKind = "handover" // a reservation became allocation
	DecideHit      DecisionKind = "hit"      // demand was served from what had been reserved
	DecideMiss     DecisionKind = "miss"     // demand had to go the standard path
	DecideWaste    DecisionKind = "waste"    // what was reserved ended unused
	DecideGrow     DecisionKind = "grow"     // the standard path raises an allocation
	DecideShrink   DecisionKind = "shrink"   // an allocation is lowered
	DecideReclaim  DecisionKind = "reclaim"  // an allocation is lowered for another VM's demand
	DecideFail     DecisionKind = "fail"     // an action failed
	DecideOverride DecisionKind = "override" // somebody else changed a limit
)

// Decision records one thing the broker decided and why, for people and for
// the history. Amounts are in the resource's unit; for waste, Amount is in
// unit-milliseconds.
type Decision struct {
	At          time.Time    `json:"at"`
	VM          VMID         `json:"vm"`
	Resource    Resource     `json:"resource"`
	Kind        DecisionKind `json:"kind"`
	Amount      int64        `json:"amount"`
	From        int64        `json:"from,omitempty"`
	To          int64        `json:"to,omitempty"`
	Reservation uint64       `json:"reservation,omitempty"`
	Seq         uint64       `json:"seq,omitempty"`
	Verdict     Verdict      `json:"verdict,omitempty"`
	Reason      string       `json:"reason"`
}
