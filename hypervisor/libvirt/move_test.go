package libvirt

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// A VM with a disk that is a file of this host cannot be moved, and is told so; to
// find out leaves nothing behind that its limits would wait for.
func TestMovable(t *testing.T) {
	b := newBench(t, Options{})
	bare, equipped := b.start(t, guest{empty: true}), b.start(t, guest{empty: true, equipped: true})
	if err := b.d.Movable(t.Context(), bare); err != nil {
		t.Error(err)
	}
	if err := b.d.Movable(t.Context(), equipped); err == nil || !strings.Contains(err.Error(), "storage that both hosts have") {
		t.Errorf("a VM whose disks are files of this host: %v", err)
	}
	for _, id := range []gnomon.VMID{bare, equipped} {
		ctx, cancel := context.WithTimeout(t.Context(), b.d.opts.Timeout)
		if err := b.d.Note(ctx, id, hypervisor.Original{}); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if err := b.d.Movable(t.Context(), "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("a VM that is not there: %v", err)
	}
}
