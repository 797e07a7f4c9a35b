// Package shaper limits what a VM's tap interfaces carry, by netlink.
//
// Each direction has a token bucket of its own: what the host sends to the
// guest in the tap's root queue, what the guest sends in the root queue of an
// intermediate (ifb) device to which the tap's ingress is redirected. The rate
// is for both directions together as far as the caller's book goes; each
// direction is given the whole of it, since how a VM splits its traffic is not
// known in advance.
package shaper

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Unlimited is the rate of an interface that is not shaped.
const Unlimited = int64(-1)

// MinRate is the lowest rate that can be set, in bytes per second: below it a
// full-sized frame would not fit into the bucket.
const MinRate = int64(1000)

const (
	ifbPrefix = "gn-ifb"

	// The queues made here are marked by their handles, so that those of
	// others are never touched. The second is for an interface that had no
	// queue at all, as libvirt sets its taps up, and is to have none again.
	plainMajor   = 0x676e // "gn"
	noqueueMajor = 0x676f

	// burst is how long a full bucket lasts at the rate, unless minBurst, which
	// holds one segment as the guest's network stack offloads it, lasts longer.
	burst    = 5 * time.Millisecond
	minBurst = 66 * 1024

	// maxQueue is how long a packet may wait before those after it are dropped.
	maxQueue = 50 * time.Millisecond
)

// ErrForeign is returned for an interface that somebody else shapes.
var ErrForeign = errors.New("another program shapes it")

// Stats are an interface's limit and counters. Those of the shaper start anew
// whenever a limit is first set.
type Stats struct {
	Rate    int64 // bytes per second in force; Unlimited if not shaped
	Drops   int64 // packets dropped by the shaper, both directions
	Backlog int64 // bytes waiting in the shaper now, both directions

	Received int64 // bytes the guest has received, since the tap was made
	Sent     int64 // bytes the guest has sent, those the shaper dropped included
	Passed   int64 // bytes of Sent that passed the shaper; 0 if not shaped
}

// Shaper shapes the interfaces of one network namespace: the caller's when New
// was called. Its methods may be called concurrently for different interfaces.
type Shaper struct {
	nl *netlink.Handle
}

// New opens the netlink socket.
func New() (*Shaper, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Shaper{nl: h}, nil
}

// Close closes the netlink socket. Limits stay.
func (s *Shaper) Close() { s.nl.Close() }

// Check reports why the interface cannot be shaped; nil if it can. Only taps
// can; one that somebody else shapes gives ErrForeign.
func (s *Shaper) Check(dev string) error {
	link, err := s.tap(dev)
	if err != nil {
		return err
	}
	qs, err := s.nl.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues of %s: %w", dev, err)
	}
	return s.checkForeign(link, qs)
}

// Set limits the interface to rate bytes per second in each direction and
// returns the rate in force afterwards, as read back. Unlimited removes the
// limit. Rates below MinRate are raised to it.
func (s *Shaper) Set(dev string, rate int64) (int64, error) {
	link, err := s.tap(dev)
	if err != nil {
		return 0, err
	}
	if rate == Unlimited {
		return Unlimited, s.remove(link)
	}
	if err := s.set(link, max(rate, MinRate)); err != nil {
		return 0, err
	}
	stats, err := s.Stats(dev)
	if err != nil {
		return 0, err
	}
	return stats[dev].Rate, nil
}

func (s *Shaper) set(link netlink.Link, rate int64) error {
	qs, err := s.nl.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues of %s: %w", link.Attrs().Name, err)
	}
	if err := s.checkForeign(link, qs); err != nil {
		return err
	}
	ifb, err := s.ifb(link)
	if err != nil {
		return err
	}
	if err := s.nl.QdiscReplace(bucket(ifb, plainHandle, rate)); err != nil {
		return fmt.Errorf("shape %s: %w", ifb.Attrs().Name, err)
	}
	if err := s.redirect(link, ifb, qs); err != nil {
		return err
	}
	if err := s.nl.QdiscReplace(bucket(link, handleFor(qs), rate)); err != nil {
		return fmt.Errorf("shape %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// remove takes away what set made and nothing else; what is already absent is
// no error.
func (s *Shaper) remove(link netlink.Link) error {
	qs, err := s.nl.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list queues of %s: %w", link.Attrs().Name, err)
	}
	ours, err := s.redirected(link)
	if err != nil {
		return err
	}
	var errs []error
	for _, q := range qs {
		if isOurs(q) || q.Type() == "ingress" && ours {
			errs = append(errs, ignoreAbsent(s.nl.QdiscDel(q)))
		}
		if isOurs(q) && q.Attrs().Handle == noqueueHandle {
			errs = append(errs, s.nl.QdiscReplace(noqueue(link)))
		}
	}
	if ifb, err := s.nl.LinkByName(ifbName(link)); err == nil {
		errs = append(errs, ignoreAbsent(s.nl.LinkDel(ifb)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove shaper of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// Stats returns the limit and counters of each interface. One that does not
// exist (any more) is left out.
func (s *Shaper) Stats(devs ...string) (map[string]Stats, error) {
	all, err := s.nl.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	byLink := make(map[int]*netlink.Tbf)
	for _, q := range all {
		if t, ok := q.(*netlink.Tbf); ok && isOurs(q) {
			byLink[t.LinkIndex] = t
		}
	}
	out := make(map[string]Stats, len(devs))
	for _, dev := range devs {
		link, err := s.nl.LinkByName(dev)
		if err != nil {
			continue
		}
		st := Stats{Rate: Unlimited}
		if n := link.Attrs().Statistics; n != nil {
			st.Received, st.Sent = int64(n.TxBytes), int64(n.RxBytes)
		}
		down, up := byLink[link.Attrs().Index], (*netlink.Tbf)(nil)
		if down != nil { // without it there is no ifb to look for
			if ifb, err := s.nl.LinkByName(ifbName(link)); err == nil {
				up = byLink[ifb.Attrs().Index]
			}
		}
		if down != nil && up != nil {
			st.Rate = int64(max(down.Rate, up.Rate))
			if up.Statistics != nil && up.Statistics.Basic != nil {
				st.Passed = int64(up.Statistics.Basic.Bytes)
			}
		}
		st.add(down)
		st.add(up)
		out[dev] = st
	}
	return out, nil
}

func (st *Stats) add(t *netlink.Tbf) {
	if t != nil && t.Statistics != nil && t.Statistics.Queue != nil {
		st.Drops += int64(t.Statistics.Queue.Drops)
		st.Backlog += int64(t.Statistics.Queue.Backlog)
	}
}

// Sweep deletes the intermediate devices of taps that are gone.
func (s *Shaper) Sweep() error {
	links, err := s.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	exists := make(map[int]bool, len(links))
	for _, l := range links {
		exists[l.Attrs().Index] = true
	}
	var errs []error
	for _, l := range links {
		suffix, ok := strings.CutPrefix(l.Attrs().Name, ifbPrefix)
		if !ok || l.Type() != "ifb" {
			continue
		}
		if index, err := strconv.Atoi(suffix); err == nil && !exists[index] {
			errs = append(errs, ignoreAbsent(s.nl.LinkDel(l)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete stale devices: %w", err)
	}
	return nil
}
