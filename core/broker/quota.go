package broker

import (
	"cmp"
	"slices"
)

// limit takes back what accounts have ahead of demand beyond their quotas, from
// the VMs of the lowest priority first: what is reserved at once, what is
// prepared by having it shrink with the next sample.
func (s *scene) limit() {
	exceeded := false
	for _, l := range s.lines {
		l.excess = 0
		exceeded = exceeded || l.book.Room() < 0
	}
	if !exceeded {
		return
	}
	for _, l := range s.leastFirst() {
		s.takeBack(l, min(-l.book.Room(), l.book.Reserved()), "the quota of "+l.m.account()+" is exceeded")
	}
	marked := map[string]int64{} // of what accounts have prepared
	lines := slices.Clone(s.lines)
	slices.SortStableFunc(lines, func(a, b *line) int { return cmp.Compare(a.priority(), b.priority()) })
	for _, l := range lines {
		account := l.m.vm.Account
		l.excess = max(0, min(-l.book.Room()-marked[account], l.book.Prepared()))
		marked[account] += l.excess
	}
}

// account names a VM's account for people.
func (m *machine) account() string {
	if m.vm.Account == "" {
		return "the VMs of no account"
	}
	return "account " + m.vm.Account
}
