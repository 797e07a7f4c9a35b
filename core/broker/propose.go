package broker

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

// operator is the session of requests that come from the host's own API, not
// from an agent. They end by their expiry only.
const operator = uint64(0)

// maxAhead bounds how far ahead a proposal may look, and how long a
// reservation may stand.
const maxAhead = 10 * time.Minute

// proposed answers an agent. Nothing in a proposal is trusted, and no want of
// a proposal with a fault is heeded. A want with level 0 asks nothing, and
// leaves an earlier request to its own end.
func (b *Broker) proposed(p gnomon.Proposal) {
	answer := gnomon.Answer{VM: p.VM, Session: p.Session, Seq: p.Seq}
	m, ok := b.find(p.VM)
	fault := "no such VM is taken in"
	if ok {
		fault = m.fault(p)
	}
	for _, w := range p.Wants[:min(len(p.Wants), gnomon.NumResources)] {
		if fault != "" {
			answer.Grants = append(answer.Grants, b.refuse(m, p.Seq, w, fault))
			continue
		}
		l := m.lines[w.Resource]
		if l == nil {
			answer.Grants = append(answer.Grants, b.refuse(m, p.Seq, w, "this resource of the VM is not limited"))
			continue
		}
		w.Model = printable(w.Model)
		l.last.Forecast, l.last.ForecastAt = w, b.now
		b.easeTo(l, w)
		// What is enough is to be had before the next proposal. Also a forecast
		// that is doubted for having been too low may ask for more.
		if enough := l.bound(w.Enough); m.policy.Release && enough > max(w.Level, l.allocated()) {
			w.Level, w.NeedIn, w.Lifetime = enough, 0, easeLasts*max(m.interval[0], m.interval[1], time.Second)
		}
		if w.Level > 0 {
			answer.Grants = append(answer.Grants, b.request(l, p, w))
		}
	}
	if ok && fault == "" && p.Session != operator {
		m.seq = p.Seq
	}
	b.out.Answers = append(b.out.Answers, answer)
}

// fault returns what is wrong with a proposal, empty if nothing.
func (m *machine) fault(p gnomon.Proposal) string {
	switch {
	case !m.policy.Shadow:
		return "its shadow is switched off (shadow.enabled), so nothing is reserved for it"
	case p.Session != operator && (!m.attached || p.Session != m.session):
		return "the session is not the one attached"
	case p.Session != operator && p.Seq <= m.seq:
		return "the sequence number did not grow"
	case len(p.Wants) > gnomon.NumResources:
		return "too many wants"
	}
	var seen gnomon.ResourceSet
	for _, w := range p.Wants {
		switch {
		case !w.Resource.Valid():
			return "a want is for an unknown resource"
		case seen.Has(w.Resource):
			return "two wants are for one resource"
		case w.Level < 0 || w.Enough < 0 || w.Low < 0 || w.Median < 0 || w.High < 0:
			return "an amount is negative"
		case w.Level > 0 && w.Lifetime <= 0:
			return "a lifetime must be above 0"
		}
		seen = seen.With(w.Resource)
	}
	return ""
}

// refuse denies a want that is not even considered.
func (b *Broker) refuse(m *machine, seq uint64, w gnomon.Want, reason string) gnomon.Grant {
	if m != nil && w.Resource.Valid() && m.lines[w.Resource] != nil {
		l := m.lines[w.Resource]
		l.counts.Refused++
		b.decide(l, gnomon.Decision{Kind: gnomon.DecideDeny, Seq: seq, Verdict: gnomon.Denied, Reason: reason})
	}
	return gnomon.Grant{Resource: w.Resource, Asked: w.Level, Verdict: gnomon.Denied, Reason: reason}
}

// request reserves what is free of what a want asks for. What is not to be had
// is added as it comes free, while the request stands.
func (b *Broker) request(l *line, p gnomon.Proposal, w gnomon.Want) gnomon.Grant {
	at := p.At
	if at.After(b.now) || at.Before(b.now.Add(-time.Minute)) {
		at = b.now
	}
	terms := ledger.Reservation{
		Session: p.Session,
		Level:   l.bound(w.Level),
		NeedAt:  at.Add(max(0, min(w.NeedIn, maxAhead))),
		Expires: at.Add(min(w.Lifetime, maxAhead)),
		Reason:  reasonOf(l, w),
	}
	l.counts.Requested++
	grant := gnomon.Grant{Resource: l.r, Asked: w.Level, Got: min(w.Level, l.allocated()), Verdict: gnomon.Denied}
	if !terms.Expires.After(b.now) {
		grant.Reason = "its lifetime was over when it came"
		return b.answered(l, p.Seq, grant, 0)
	}
	if old := l.book.Reservation(); old != nil && old.Session == operator && p.Session != operator && old.Level >= terms.Level {
		terms = *old // the operator's own request covers it
		terms.Level = l.bound(terms.Level)
	}
	if terms.Level > l.standard() {
		l.lent = 0
	}
	missing := max(0, terms.Level-l.allocated())
	got := l.book.Reserved() + b.scene(l.r).secure(l, missing-l.book.Reserved())
	waste, err := l.book.Reserve(terms, got, b.now)
	b.fault(err)
	l.owe(waste)

	grant.Got = min(w.Level, l.allocated()+got)
	grant.Reservation, grant.Expires = l.book.Reservation().ID, terms.Expires
	switch {
	case missing == 0:
		grant.Verdict, grant.Reason = gnomon.Granted, "already allocated"
	case got == missing:
		grant.Verdict, grant.Reason = gnomon.Granted, "reserved "+l.format(got)
	case got > 0:
		grant.Verdict = gnomon.Partial
		grant.Reason = fmt.Sprintf("reserved %s of %s, %s", l.format(got), l.format(missing), l.whyNoMore())
	default:
		grant.Reason = fmt.Sprintf("nothing reserved of the %s missing, %s", l.format(missing), l.whyNoMore())
	}
	if terms.Level < w.Level {
		grant.Reason += "; the ceiling is " + l.format(l.bounds.Ceiling)
		if grant.Verdict == gnomon.Granted {
			grant.Verdict = gnomon.Partial
		}
	}
	return b.answered(l, p.Seq, grant, got)
}

// whyNoMore tells why no more is reserved for a line.
func (l *line) whyNoMore() string {
	if l.book.Room() <= 0 {
		return "the quota of " + l.m.account() + " allows no more"
	}
	return "no more is free"
}

func reasonOf(l *line, w gnomon.Want) string {
	s := fmt.Sprintf("forecast of up to %s", l.format(w.High))
	if w.Model != "" {
		s += " by " + w.Model
	}
	return s
}

// printable returns what of an agent's text is fit to be shown.
func printable(s string) string {
	s = s[:min(len(s), 32)]
	return strings.Map(func(c rune) rune {
		if c > unicode.MaxASCII || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, s)
}

// answered counts and records the outcome of a request.
func (b *Broker) answered(l *line, seq uint64, g gnomon.Grant, reserved int64) gnomon.Grant {
	kind := gnomon.DecideReserve
	switch g.Verdict {
	case gnomon.Granted:
		l.counts.Granted++
	case gnomon.Partial:
		l.counts.Partial++
	default:
		l.counts.Denied++
		kind = gnomon.DecideDeny
	}
	b.decide(l, gnomon.Decision{Kind: kind, Amount: reserved, From: l.allocated(), To: g.Got,
		Reservation: g.Reservation, Seq: seq, Verdict: g.Verdict, Reason: g.Reason})
	return g
}
