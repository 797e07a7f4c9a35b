package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/test/bench/rig"
)

// naiveOn measures a program that asks for each metric of each VM by a call of
// its own, once a second.
func naiveOn(ctx context.Context, n int, window time.Duration) (cost, error) {
	virt := lv.NewWithDialer(dialer{})
	if err := virt.ConnectToURI(lv.QEMUSystem); err != nil {
		return cost{}, fmt.Errorf("connect to libvirt: %w", err)
	}
	defer func() { _ = virt.Disconnect() }()
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := askAll(virt); err != nil {
					ended <- err
					return
				}
			case <-ctx.Done():
				ended <- nil
				return
			}
		}
	}()
	c, err := during(ctx, window)
	stop()
	if e := <-ended; err == nil {
		err = e
	}
	c.VMs, c.Kind = n, "one call a metric, real VMs"
	return c, err
}

type dialer struct{}

func (dialer) Dial() (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(context.Background(), "unix", "/run/libvirt/libvirt-sock")
}

// askAll reads what the daemon reads of every VM of ours.
func askAll(virt *lv.Libvirt) error {
	domains, _, err := virt.ConnectListAllDomains(1, lv.ConnectListDomainsActive)
	if err != nil {
		return err
	}
	for _, dom := range domains {
		if strings.HasPrefix(dom.Name, rig.Prefix()) {
			if err := ask(virt, dom); err != nil {
				return fmt.Errorf("ask for %s: %w", dom.Name, err)
			}
		}
	}
	return nil
}

func ask(virt *lv.Libvirt, dom lv.Domain) error {
	if _, _, _, _, _, err := virt.DomainGetInfo(dom); err != nil {
		return err
	}
	if _, _, err := virt.DomainGetVcpus(dom, 1, 1); err != nil {
		return err
	}
	if _, err := virt.DomainMemoryStats(dom, uint32(lv.DomainMemoryStatNr), 0); err != nil {
		return err
	}
	if _, _, _, _, _, err := virt.DomainBlockStats(dom, "vda"); err != nil {
		return err
	}
	if _, _, err := virt.DomainGetBlockIOTune(dom, lv.OptString{"vda"}, 32, uint32(lv.DomainAffectLive)); err != nil {
		return err
	}
	_, err := virt.DomainGetSchedulerParametersFlags(dom, 16, uint32(lv.DomainAffectLive))
	return err
}
