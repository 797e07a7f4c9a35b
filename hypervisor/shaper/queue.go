package shaper

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	plainHandle   = netlink.MakeHandle(plainMajor, 0)
	noqueueHandle = netlink.MakeHandle(noqueueMajor, 0)
	ingressHandle = netlink.MakeHandle(0xffff, 0)
)

// tap returns the link of that name, if it is a tap.
func (s *Shaper) tap(dev string) (netlink.Link, error) {
	link, err := s.nl.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", dev, err)
	}
	if _, ok := link.(*netlink.Tuntap); !ok {
		return nil, fmt.Errorf("interface %s is a %s, not a tap", dev, link.Type())
	}
	return link, nil
}

// ifb returns the tap's intermediate device, made and brought up if need be.
func (s *Shaper) ifb(tap netlink.Link) (netlink.Link, error) {
	name := ifbName(tap)
	link, err := s.nl.LinkByName(name)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		// The peer's queue feeds a token bucket: its own length is of no use.
		attrs.TxQLen = 32
		if err := s.nl.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make device %s: %w", name, err)
		}
		if link, err = s.nl.LinkByName(name); err != nil {
			return nil, fmt.Errorf("find device %s: %w", name, err)
		}
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := s.nl.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("bring up %s: %w", name, err)
		}
	}
	return link, nil
}

// redirect sends all that enters the tap through the ifb device.
func (s *Shaper) redirect(tap, ifb netlink.Link, qs []netlink.Qdisc) error {
	if done, err := s.redirected(tap); err != nil || done {
		return err
	}
	name := tap.Attrs().Name
	if !hasIngress(qs) {
		q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: tap.Attrs().Index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS,
		}}
		if err := s.nl.QdiscAdd(q); err != nil {
			return fmt.Errorf("add ingress to %s: %w", name, err)
		}
	}
	// u32 with no key matches everything; kernels without matchall have it.
	f := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: tap.Attrs().Index, Parent: ingressHandle, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{netlink.NewMirredAction(ifb.Attrs().Index)},
	}
	if err := s.nl.FilterAdd(f); err != nil {
		return fmt.Errorf("redirect ingress of %s: %w", name, err)
	}
	return nil
}

// redirected reports whether the tap's ingress goes to its own ifb device.
func (s *Shaper) redirected(tap netlink.Link) (bool, error) {
	ifb, err := s.nl.LinkByName(ifbName(tap))
	if err != nil {
		return false, nil
	}
	filters, err := s.nl.FilterList(tap, ingressHandle)
	if err != nil {
		return false, fmt.Errorf("list filters of %s: %w", tap.Attrs().Name, err)
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if !ok {
			continue
		}
		for _, a := range u.Actions {
			if m, ok := a.(*netlink.MirredAction); ok && m.Ifindex == ifb.Attrs().Index {
				return true, nil
			}
		}
	}
	return false, nil
}

// checkForeign reports whether somebody else put a queue on the interface. The
// kernel's default queue has no handle.
func (s *Shaper) checkForeign(link netlink.Link, qs []netlink.Qdisc) error {
	name := link.Attrs().Name
	for _, q := range qs {
		switch a := q.Attrs(); {
		case q.Type() == "ingress" || q.Type() == "clsact":
			filters, err := s.nl.FilterList(link, ingressHandle)
			if err != nil {
				return fmt.Errorf("list filters of %s: %w", name, err)
			}
			ours, err := s.redirected(link)
			if err != nil {
				return err
			}
			if q.Type() == "clsact" || len(filters) > 0 && !ours {
				return fmt.Errorf("interface %s: %w", name, ErrForeign)
			}
		case a.Parent == netlink.HANDLE_ROOT && a.Handle != 0 && q.Type() != "noqueue" && !isOurs(q):
			return fmt.Errorf("interface %s has a %s queue: %w", name, q.Type(), ErrForeign)
		}
	}
	return nil
}

// bucket is the token bucket that holds rate bytes per second.
func bucket(link netlink.Link, handle uint32, rate int64) *netlink.Tbf {
	size := max(bytesIn(rate, burst), minBurst)
	// The kernel keeps a bucket's depth as a time in 32 bits of nanoseconds.
	depth := min(float64(size)/float64(rate), 4.2)
	limit := min(max(bytesIn(rate, maxQueue), 2*minBurst), math.MaxUint32)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: handle, Parent: netlink.HANDLE_ROOT,
		},
		Rate:   uint64(rate),
		Limit:  uint32(limit),
		Buffer: uint32(depth * 1e6 * netlink.TickInUsec()),
	}
}

func bytesIn(rate int64, d time.Duration) int64 {
	return int64(float64(rate) * d.Seconds())
}

func isOurs(q netlink.Qdisc) bool {
	h := q.Attrs().Handle
	return q.Type() == "tbf" && (h == plainHandle || h == noqueueHandle)
}

// handleFor returns the handle that marks a bucket on an interface that has
// these queues now.
func handleFor(qs []netlink.Qdisc) uint32 {
	for _, q := range qs {
		switch {
		case isOurs(q):
			return q.Attrs().Handle
		case q.Type() == "noqueue" && q.Attrs().Parent == netlink.HANDLE_ROOT:
			return noqueueHandle
		}
	}
	return plainHandle
}

// noqueue is what has packets sent at once.
func noqueue(link netlink.Link) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT},
		QdiscType:  "noqueue",
	}
}

func hasIngress(qs []netlink.Qdisc) bool {
	for _, q := range qs {
		if q.Type() == "ingress" {
			return true
		}
	}
	return false
}

// Queues returns the indexes of the devices whose root queues carry what goes
// through the interface: its own, and that of what the guest sends, if it is
// shaped.
func (s *Shaper) Queues(dev string) []int {
	link, err := s.nl.LinkByName(dev)
	if err != nil {
		return nil
	}
	queues := []int{link.Attrs().Index}
	if ifb, err := s.nl.LinkByName(ifbName(link)); err == nil {
		queues = append(queues, ifb.Attrs().Index)
	}
	return queues
}

func ifbName(tap netlink.Link) string {
	return ifbPrefix + strconv.Itoa(tap.Attrs().Index)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
