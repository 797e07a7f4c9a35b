package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

var _ hypervisor.Mover = (*Driver)(nil)

// abortTimeout bounds giving a move up.
const abortTimeout = 10 * time.Second

// moveFlags have the memory go through the connection of the two libvirts: no
// further port is used, and it is as safe as that connection. A guest that writes
// faster than it is copied is slowed down rather than never moved.
const moveFlags = lv.MigrateLive | lv.MigratePeer2peer | lv.MigrateTunnelled | lv.MigrateAutoConverge | lv.MigrateAbortOnError

// Movable implements hypervisor.Mover. It has libvirt take the first step of a move,
// which is to look at the definition, and no further one.
func (d *Driver) Movable(ctx context.Context, id gnomon.VMID) error {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return err
	}
	err = doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		_, _, err := l.DomainMigrateBegin3Params(dm.Domain, nil, uint32(lv.MigrateLive))
		return err
	})
	var refused lv.Error
	if errors.As(err, &refused) && refused.Code == uint32(lv.ErrMigrateUnsafe) {
		err = fmt.Errorf("%w: its disks have to be on storage that both hosts have, such as NFS, Ceph or devices of a storage network, with cache='none'", err)
	}
	if err != nil {
		return fmt.Errorf("move VM %s: %w", dm.Name, d.goneOr(ctx, dm.Domain, err))
	}
	return nil
}

// Move implements hypervisor.Mover. A VM whose definition this host keeps is kept
// by the other from then on. Its disks have to be there, too.
func (d *Driver) Move(ctx context.Context, id gnomon.VMID, to string) error {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return err
	}
	// A connection of its own: a call that takes minutes takes up one of the few
	// that a connection may have under way.
	s, err := connect(ctx, d.opts)
	if err != nil {
		return err
	}
	defer s.drop()
	flags := moveFlags
	if kept, err := s.DomainIsPersistent(dm.Domain); err != nil {
		return fmt.Errorf("move VM %s: %w", dm.Name, err)
	} else if kept == 1 {
		flags |= lv.MigratePersistDest | lv.MigrateUndefineSource
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.DomainMigratePerform3Params(dm.Domain, lv.OptString{to}, nil, nil, flags)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
		defer cancel()
		_ = do(abort, d, func(l *lv.Libvirt) error { return l.DomainAbortJob(dm.Domain) })
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("move VM %s to %s: %w", dm.Name, to, err)
	}
	return nil
}
