package libvirt

import (
	"context"
	"fmt"
	"os"
	"time"

	lv "github.com/digitalocean/go-libvirt"
)

// startTime is how long a guest may take from its start until its balloon works.
const startTime = 5 * time.Minute

// begins returns the memory that the stored definition of a domain gives its
// guest, in bytes; 0 if none is stored. The live one tells only what the guest
// has now.
func (d *Driver) begins(ctx context.Context, dom lv.Domain) (int64, error) {
	stored, err := call(ctx, d, func(l *lv.Libvirt) (int32, error) { return l.DomainIsPersistent(dom) })
	if err != nil || stored == 0 {
		return 0, err
	}
	text, err := call(ctx, d, func(l *lv.Libvirt) (string, error) { return l.DomainGetXMLDesc(dom, lv.DomainXMLInactive) })
	if err != nil {
		return 0, fmt.Errorf("get stored definition: %w", err)
	}
	def, err := parseDefinition(text)
	if err != nil {
		return 0, err
	}
	return def.current, nil
}

// starts tells whether a guest that has this much memory has it only because
// it began lately and its balloon does not work yet.
func (dm *domain) starts(memory int64) bool {
	if !dm.def.balloon || dm.begins == 0 || dm.begins >= memory || memory < dm.def.booted {
		return false
	}
	began, err := os.Stat(processFile(dm.Name)) // written at the start
	return err == nil && time.Since(began.ModTime()) < startTime
}
