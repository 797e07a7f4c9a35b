package rig

import (
	"context"

	"github.com/gnomon-vm/gnomon/host"
)

// Run runs a daemon in this process until stop is called, which waits for its end
// and returns what it ended with.
func Run(ctx context.Context, d *host.Daemon) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}
