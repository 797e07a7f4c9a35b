package libvirt

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/gnomon-vm/gnomon"
)

// detail is what the amounts of a VM's limits do not tell.
type detail struct {
	Disks  throttles `json:"disks,omitempty"`  // without those that have none
	Quotas *quotas   `json:"quotas,omitempty"` // of a domain whose vCPUs share them
}

// detail returns the detail of the limits in force, as text.
func (d *Driver) detail(ctx context.Context, dm *domain) (string, error) {
	var of detail
	if dm.limits.Has(gnomon.Disk) {
		found, err := d.throttles(ctx, dm)
		if err != nil {
			return "", err
		}
		of.Disks = maps.Clone(found)
		maps.DeleteFunc(of.Disks, func(_ string, t throttle) bool { return t.equal(throttle{}) })
	}
	if dm.limits.Has(gnomon.CPU) && dm.shares() {
		q, err := d.quotas(ctx, dm)
		if err != nil {
			return "", err
		}
		of.Quotas = &q
	}
	return of.encode()
}

func (of detail) encode() (string, error) {
	text, err := json.Marshal(of)
	if err != nil {
		return "", fmt.Errorf("write limits down: %w", err)
	}
	return string(text), nil
}

// parseDetail reads what encode wrote.
func parseDetail(text string) (of detail, err error) {
	if text == "" {
		return of, nil
	}
	if err := json.Unmarshal([]byte(text), &of); err != nil {
		return of, fmt.Errorf("read the detail of limits: %w", err)
	}
	return of, nil
}
