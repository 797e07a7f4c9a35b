package broker

import (
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// keptLate is how many failed actions of a line in a row are kept in mind.
const keptLate = 8

// applied books the outcome of an action: what was observed, whatever was
// asked for. The outcome of one that is not in flight is not news.
func (b *Broker) applied(a gnomon.Applied) {
	m, ok := b.find(a.VM)
	if !ok || !a.Resource.Valid() {
		return
	}
	l := m.lines[a.Resource]
	if l == nil || l.flight == nil || l.flight.action.ID != a.Action {
		return
	}
	observed := a.Observed
	if observed < 0 {
		observed = l.bounds.Ceiling
	}
	b.landed(l, amount(observed), a.Error)
}

// landed ends the action in flight.
func (b *Broker) landed(l *line, observed int64, failure string) {
	a := l.flight.action
	l.flight, l.settledAt = nil, b.now
	waste := l.book.Observe(observed, b.now)
	b.wasted(l, waste, "made ready and not used")
	l.keep(b.now)

	up, last := a.To > a.From, lastRetry
	if up {
		last = lastRegrow
	}
	failed := l.failures(up)
	if failure == "" && near(observed, a.To) {
		l.asked, l.got, l.late, *failed = a.To, observed, nil, failures{}
		return
	}
	l.asked, l.late = -1, append(l.late, a.To)
	l.late = l.late[max(0, len(l.late)-keptLate):]
	failed.retry = b.now.Add(min(last, firstRetry<<min(failed.count, 6)))
	failed.count++
	if failure == "" {
		failure = "it went only part of the way"
	}
	b.decide(l, gnomon.Decision{Kind: gnomon.DecideFail, From: a.From, To: a.To, Amount: observed,
		Reason: fmt.Sprintf("set to %s, is %s: %s", l.format(a.To), l.format(observed), failure)})
}

// reconcile compares the book with the allocation a sample tells of, and reports
// whether the line is still kept. With nothing in flight the sample is right. An
// action that is overdue is taken to have done what the sample shows.
func (b *Broker) reconcile(l *line, at time.Time, observed int64) bool {
	if l.flight != nil {
		if at.Sub(l.flight.since) >= b.timeout {
			b.landed(l, observed, fmt.Sprintf("no outcome within %v", b.timeout))
		}
		return true
	}
	booked := l.allocated()
	if observed == booked || !at.After(l.settledAt) {
		return true
	}
	b.wasted(l, l.book.Observe(observed, b.now), "made ready and taken away")
	if near(observed, booked) {
		return true
	}
	d := gnomon.Decision{Kind: gnomon.DecideOverride, Amount: max(observed-booked, booked-observed), From: booked, To: observed}
	found := fmt.Sprintf("found %s, booked %s", l.format(observed), l.format(booked))
	who := "somebody else"
	if l.r == gnomon.Memory {
		who = "the guest or " + who
	}
	switch {
	case slices.ContainsFunc(l.late, func(to int64) bool { return near(observed, to) }):
		if d.Kind = gnomon.DecideShrink; observed > booked {
			d.Kind = gnomon.DecideGrow
		}
		d.Reason = "a change that was given up came into force: " + found
	case l.adopts():
		d.Reason = "changed by " + who + ", and left so: " + found
		b.decide(l, d)
		l.m.vm.Limits = l.m.vm.Limits.Without(l.r)
		b.close(l, "somebody else sets the limit")
		return false
	default:
		d.Reason = "changed by " + who + ": " + found
	}
	b.decide(l, d)
	if observed > l.base { // what someone gave it, it keeps until Hold has passed
		l.rebase(l.bound(observed), b.now)
		l.cause, l.steady = "what was found", b.now
		l.firm(b.now.Add(l.hold()))
	}
	return true
}

// adopts reports whether a limit that somebody else set is left alone. A guest's
// memory changes without anybody: it takes back from its balloon, or boots anew.
func (l *line) adopts() bool { return l.m.policy.Adopt && l.r != gnomon.Memory }
