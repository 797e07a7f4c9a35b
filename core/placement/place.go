// Package placement decides which host a VM is to be on: where a new one goes, and
// which ones move before their host is short.
package placement

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gnomon-vm/gnomon"
)

// Host is what a decision knows of one host that is connected.
type Host struct {
	Name     string
	Labels   map[string]string
	Cordoned bool

	// Capacity is what it may promise to VMs; a resource with none is not
	// looked at. Taken is what of it is in use or predicted to be, whichever is
	// more.
	Capacity, Taken gnomon.Resources

	Mates    int  // VMs of the same account that it runs
	Waits    bool // a warm shadow of the account waits there
	Accounts int  // that are designated to it
}

// Load is the part of the host's CPU or memory, whichever is more, that is
// taken once needs are added; 0 where the capacity of neither is known.
func (h Host) Load(needs gnomon.Resources) float64 {
	worst := 0.0
	for _, r := range []gnomon.Resource{gnomon.CPU, gnomon.Memory} {
		if h.Capacity[r] > 0 {
			worst = max(worst, float64(h.Taken[r]+needs[r])/float64(h.Capacity[r]))
		}
	}
	return worst
}

// lacks returns the first resource that the host has too little of, and how
// much of it is left.
func (h Host) lacks(needs gnomon.Resources) (r gnomon.Resource, left int64, short bool) {
	for r := range gnomon.AllResources() {
		if left := h.Capacity[r] - h.Taken[r]; h.Capacity[r] > 0 && needs[r] > 0 && needs[r] > left {
			return r, max(left, 0), true
		}
	}
	return 0, 0, false
}

// ErrNoHost is returned where no host may be chosen at all.
var ErrNoHost = errors.New("no host may be chosen")

// ErrOverCapacity is returned where the hosts that may be chosen have too little
// left.
var ErrOverCapacity = errors.New("over capacity")

// Request is what is to be placed.
type Request struct {
	Needs  gnomon.Resources // zero for what costs next to nothing
	Labels map[string]string

	// Host is the only one that may be chosen; empty for any that is not
	// cordoned and has the labels.
	Host string
}

// Place returns the host that is best: of those that may be chosen and have the
// room, one where the account's warm shadow waits, then with the fewest VMs of
// the same account, then with the smallest load. Why is for people. The error is
// an ErrNoHost or an ErrOverCapacity.
func Place(hosts []Host, r Request) (best Host, why string, err error) {
	var fit []Host
	var short []string
	may := 0
	for _, h := range hosts {
		if !r.allows(h) {
			continue
		}
		may++
		if res, left, lacks := h.lacks(r.Needs); lacks {
			short = append(short, fmt.Sprintf("%s has %s of %s left and %s is asked for",
				h.Name, gnomon.Format(res, left), res, gnomon.Format(res, r.Needs[res])))
			continue
		}
		fit = append(fit, h)
	}
	switch {
	case may == 0:
		return Host{}, "", r.noHost()
	case len(fit) == 0:
		slices.Sort(short)
		const few = 5
		if len(short) > few {
			short = append(short[:few], fmt.Sprintf("and so on for %d more", len(short)-few))
		}
		return Host{}, "", fmt.Errorf("%w: %s", ErrOverCapacity, strings.Join(short, "; "))
	}
	best = slices.MinFunc(fit, func(a, b Host) int { return compare(a, b, r.Needs) })
	return best, reason(best, fit, r), nil
}

func (r Request) allows(h Host) bool {
	if r.Host != "" {
		return h.Name == r.Host
	}
	for key, value := range r.Labels {
		if h.Labels[key] != value {
			return false
		}
	}
	return !h.Cordoned
}

func (r Request) noHost() error {
	if r.Host != "" {
		return fmt.Errorf("%w: host %q is not connected", ErrNoHost, r.Host)
	}
	what := ""
	if len(r.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
			labels = append(labels, key+"="+r.Labels[key])
		}
		what = " and has the labels " + strings.Join(labels, ",")
	}
	return fmt.Errorf("%w: none is connected, not cordoned%s", ErrNoHost, what)
}

func compare(a, b Host, needs gnomon.Resources) int {
	waits := func(h Host) int {
		if h.Waits {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(waits(a), waits(b)), cmp.Compare(a.Mates, b.Mates),
		cmp.Compare(a.Load(needs), b.Load(needs)), cmp.Compare(a.Accounts, b.Accounts), cmp.Compare(a.Name, b.Name))
}

func reason(best Host, fit []Host, r Request) string {
	part := fmt.Sprintf("%.0f%% of it is in use or predicted to be", 100*best.Load(gnomon.Resources{}))
	if r.Needs != (gnomon.Resources{}) {
		part = fmt.Sprintf("%.0f%% of it will be in use or predicted to be", 100*best.Load(r.Needs))
	}
	fewestMates := slices.ContainsFunc(fit, func(h Host) bool { return h.Mates > best.Mates })
	switch {
	case r.Host != "":
		return part
	case best.Waits:
		return "the account's warm shadow waits there; " + part
	case fewestMates:
		return fmt.Sprintf("it runs the fewest VMs of the account of %d hosts (%d); %s", len(fit), best.Mates, part)
	case len(fit) == 1:
		return "no other host may have it; " + part
	}
	return fmt.Sprintf("%s, the least of %d hosts", part, len(fit))
}
