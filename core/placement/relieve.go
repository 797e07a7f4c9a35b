package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gnomon-vm/gnomon"
)

// A host whose VMs are predicted to need more than Short percent of what it may
// promise is short: some of their requests are about to be denied. One that takes
// a VM in has at most Safe percent of it taken then, so that what was moved is
// not moved again soon.
const (
	Short = 90
	Safe  = 80
)

// Guest is a VM that runs and may be moved.
type Guest struct {
	ID, Name, Host string
	Needs          gnomon.Resources  // at most, within its horizon
	Memory         int64             // bytes to copy
	Labels         map[string]string // that its host must have
	Mates          map[string]int    // by host, VMs of the same account
	Stays          string            // why it is not to be moved; empty if it may
}

// Move is a VM that is to go to another host.
type Move struct {
	Guest Guest
	To    string
	Why   string // for people, with numbers
}

// Advice is what is to be done about hosts that are short.
type Advice struct {
	Moves []Move

	// Unsolved has, for each host that stays short whatever is moved, why.
	Unsolved []string
}

// Relieve says which VMs to move so that no host is short, as few as it finds and
// of those the smallest. It makes no host short, and what it says depends on its
// arguments alone. Peak is, by host, what its VMs are predicted to need together.
func Relieve(hosts []Host, peak map[string]gnomon.Resources, guests []Guest) Advice {
	s := scene{peak: map[string]gnomon.Resources{}}
	for _, h := range slices.SortedFunc(slices.Values(hosts), func(a, b Host) int { return cmp.Compare(a.Name, b.Name) }) {
		s.hosts = append(s.hosts, h)
		s.peak[h.Name] = peak[h.Name]
	}
	s.guests = slices.SortedFunc(slices.Values(guests), func(a, b Guest) int { return cmp.Compare(a.ID, b.ID) })
	for i := range s.hosts {
		s.relieve(i)
	}
	return s.advice
}

type scene struct {
	hosts  []Host
	peak   map[string]gnomon.Resources
	guests []Guest
	advice Advice
}

// excess is by how much a peak is above what makes a host short.
func excess(h Host, peak gnomon.Resources) (e gnomon.Resources, short bool) {
	for r := range gnomon.AllResources() {
		if h.Capacity[r] > 0 {
			e[r] = max(peak[r]-part(h.Capacity[r], Short), 0)
			short = short || e[r] > 0
		}
	}
	return e, short
}

func part(amount, percent int64) int64 {
	return amount/100*percent + amount%100*percent/100
}

// relieve moves VMs of one host until it is not short, or else none.
func (s *scene) relieve(i int) {
	peak := s.peak[s.hosts[i].Name]
	e, short := excess(s.hosts[i], peak)
	if !short {
		return
	}
	hosts, done := slices.Clone(s.hosts), len(s.advice.Moves)
	moved := map[string]bool{}
	for short {
		g, to, ok := s.best(s.hosts[i], e, hosts, moved)
		if !ok {
			s.advice.Moves = s.advice.Moves[:done]
			s.advice.Unsolved = append(s.advice.Unsolved, s.hosts[i].Name+" "+s.short(s.hosts[i], peak)+", and no VM of it that would help has another host to go to")
			return
		}
		moved[g.ID] = true
		s.advice.Moves = append(s.advice.Moves, Move{Guest: g, To: hosts[to].Name, Why: s.why(s.hosts[i], peak, g, hosts[to])})
		peak = peak.Sub(g.Needs)
		hosts[to].Taken = hosts[to].Taken.Add(g.Needs)
		e, short = excess(s.hosts[i], peak)
	}
	for _, m := range s.advice.Moves[done:] {
		s.peak[m.To] = s.peak[m.To].Add(m.Guest.Needs)
	}
	s.hosts, s.peak[s.hosts[i].Name] = hosts, peak
}

// best returns the VM to move next and the host for it: one that is enough by
// itself, and the smallest of those, else the one that helps most.
func (s *scene) best(from Host, e gnomon.Resources, hosts []Host, moved map[string]bool) (best Guest, to int, ok bool) {
	var helps, bestHelps int64
	for _, g := range s.guests {
		if g.Host != from.Name || g.Stays != "" || moved[g.ID] {
			continue
		}
		if helps = help(g, from, e); helps == 0 {
			continue
		}
		if ok && !better(g, helps, best, bestHelps) {
			continue
		}
		if at, found := goesTo(g, hosts); found {
			best, to, ok, bestHelps = g, at, true, helps
		}
	}
	return best, to, ok
}

// enough is the help of a VM that is enough by itself.
const enough = 1 << 20

// help is how much of an excess goes with a VM, up to enough.
func help(g Guest, from Host, e gnomon.Resources) int64 {
	var all, goes float64
	for r := range gnomon.AllResources() {
		if e[r] > 0 {
			c := float64(from.Capacity[r])
			all += float64(e[r]) / c
			goes += float64(min(e[r], g.Needs[r])) / c
		}
	}
	return int64(enough * goes / all)
}

func better(a Guest, helpsA int64, b Guest, helpsB int64) bool {
	return cmp.Or(cmp.Compare(helpsB, helpsA), cmp.Compare(a.Memory, b.Memory), cmp.Compare(a.Needs[gnomon.CPU], b.Needs[gnomon.CPU])) < 0
}

// goesTo returns the best host that a VM leaves safe.
func goesTo(g Guest, hosts []Host) (int, bool) {
	best, found := 0, false
	for i, h := range hosts {
		if h.Name == g.Host || !(Request{Labels: g.Labels}).allows(h) || !safe(h, g.Needs) {
			continue
		}
		h.Mates = g.Mates[h.Name]
		other := hosts[best]
		other.Mates = g.Mates[other.Name]
		if !found || compare(h, other, g.Needs) < 0 {
			best, found = i, true
		}
	}
	return best, found
}

func safe(h Host, needs gnomon.Resources) bool {
	for r := range gnomon.AllResources() {
		if h.Capacity[r] > 0 && h.Taken[r]+needs[r] > part(h.Capacity[r], Safe) {
			return false
		}
	}
	return true
}

// short tells of what a host is short, and how.
func (s *scene) short(h Host, peak gnomon.Resources) string {
	worst, most := gnomon.CPU, 0.0
	for r := range gnomon.AllResources() {
		if h.Capacity[r] <= 0 {
			continue
		}
		if load := float64(peak[r]) / float64(h.Capacity[r]); load > most {
			worst, most = r, load
		}
	}
	return fmt.Sprintf("is predicted to need %s of its %s of %s (%.0f%%)",
		gnomon.Format(worst, peak[worst]), gnomon.Format(worst, h.Capacity[worst]), worst, 100*most)
}

func (s *scene) why(from Host, peak gnomon.Resources, g Guest, to Host) string {
	e, _ := excess(from, peak)
	needs := ""
	for r := range gnomon.AllResources() {
		if e[r] > 0 && g.Needs[r] > 0 {
			if needs != "" {
				needs += " and "
			}
			needs += gnomon.Format(r, g.Needs[r]) + " of " + r.String()
		}
	}
	left := peak.Sub(g.Needs)
	return fmt.Sprintf("%s %s, where requests begin to be denied; %s of that is %s's, and without it %.0f%% are needed; %s then has %.0f%% taken",
		from.Name, s.short(from, peak), needs, g.Name, 100*Host{Capacity: from.Capacity, Taken: left}.worst(), to.Name, 100*to.with(g.Needs).worst())
}

// with returns the host with more taken.
func (h Host) with(needs gnomon.Resources) Host {
	h.Taken = h.Taken.Add(needs)
	return h
}

// worst is the part of the capacity taken of the resource it has least of.
func (h Host) worst() float64 {
	worst := 0.0
	for r := range gnomon.AllResources() {
		if h.Capacity[r] > 0 {
			worst = max(worst, float64(h.Taken[r])/float64(h.Capacity[r]))
		}
	}
	return worst
}
