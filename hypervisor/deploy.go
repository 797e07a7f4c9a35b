package hypervisor

import (
	"context"
	"errors"

	"github.com/gnomon-vm/gnomon"
)

// ErrTaken is returned for a deployment whose name or id another VM has, running
// or not.
var ErrTaken = errors.New("the name or the id is taken")

// ErrDefinition is returned for a definition that the hypervisor refuses.
var ErrDefinition = errors.New("the hypervisor refuses the definition")

// Deployer starts VMs by their definitions. It is apart from Driver, since a
// host can be served without it.
type Deployer interface {
	// Deploy defines a VM and starts it. It returns nil for one that the same
	// order has started already. After an error nothing is left of the VM,
	// unless ctx ended: then it may start yet.
	Deploy(ctx context.Context, d Deployment) error
}

// Mover moves VMs to other hosts.
type Mover interface {
	// Movable returns why a running VM cannot be moved to any other host, as far as
	// this one can tell; nil if nothing is against it. It changes nothing.
	Movable(ctx context.Context, id gnomon.VMID) error

	// Move moves a running VM to the host whose hypervisor is at the address,
	// while it runs, and returns when it runs there. After an error it runs where
	// it was, unless the connection was lost midway. When ctx ends the move is
	// given up.
	Move(ctx context.Context, id gnomon.VMID, to string) error
}

// Noter has VMs carry a note of their own limits.
type Noter interface {
	// Note has a running VM carry the limits that are its own, in place of those it
	// carried before: Machine.Own tells of them on whatever host the VM is then.
	// Restore takes the note away, and so does the VM's end.
	Note(ctx context.Context, id gnomon.VMID, own Original) error
}

// Deployment is a VM that is to be started.
type Deployment struct {
	Definition string // with the name, the id and the order in it
	ID         gnomon.VMID
	Name       string
	Order      string // names the deployment

	// ValidateOnly has everything checked and nothing changed.
	ValidateOnly bool
}
