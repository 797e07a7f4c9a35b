package history

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/gnomon-vm/gnomon"
)

// Retention is for how long values are kept, each period more than 0. A series
// counts by its labels: what is given for its vm_id holds, else for its host,
// else for its account, else Default. Means and maxima are kept for multiples of
// that (Level). The zero Retention keeps everything.
type Retention struct {
	Default   time.Duration
	ByAccount map[string]time.Duration
	ByHost    map[string]time.Duration
	ByVM      map[gnomon.VMID]time.Duration
}

// Longest returns for how long anything is kept: the means and maxima of what has
// the longest of the periods. It is 0 if everything is kept.
func (r Retention) Longest() time.Duration {
	longest := r.Default
	for _, l := range r.givens() {
		for _, keep := range l.keep {
			longest = max(longest, keep)
		}
	}
	most := time.Duration(1)
	for _, t := range tiers {
		most = max(most, t.times)
	}
	return most * longest
}

// given is what is given for the values of one label.
type given struct {
	label string
	keep  map[string]time.Duration
}

// givens returns all of them, the narrowest first.
func (r Retention) givens() []given {
	byVM := make(map[string]time.Duration, len(r.ByVM))
	for id, keep := range r.ByVM {
		byVM[string(id)] = keep
	}
	return []given{{"vm_id", byVM}, {"host", r.ByHost}, {"account", r.ByAccount}}
}

// Of returns for how long the values of a series are kept.
func (r Retention) Of(series labels.Labels) time.Duration {
	return times(series.Get(model.MetricNameLabel)) * r.period(series)
}

// period returns what is given for a series by its labels.
func (r Retention) period(series labels.Labels) time.Duration {
	if keep, ok := r.ByVM[gnomon.VMID(series.Get("vm_id"))]; ok {
		return keep
	}
	if keep, ok := r.ByHost[series.Get("host")]; ok {
		return keep
	}
	if keep, ok := r.ByAccount[series.Get("account")]; ok {
		return keep
	}
	return r.Default
}

// times returns for how many times the period of its labels a metric is kept.
func times(metric string) time.Duration {
	if l, ok := LevelOf(metric); ok {
		return time.Duration(l.Outlives)
	}
	return 1
}

// tier is the metrics that are kept for the same multiple of a period.
type tier struct {
	times   time.Duration
	metrics *labels.Matcher
}

// tiers are all of them.
var tiers = func() []tier {
	var all []tier
	names := func(how labels.MatchType, levels string) *labels.Matcher {
		return labels.MustNewMatcher(how, model.MetricNameLabel, ".*:(mean|max)("+levels+")")
	}
	var any []string
	for _, l := range Levels {
		all = append(all, tier{time.Duration(l.Outlives), names(labels.MatchRegexp, l.Name)})
		any = append(any, l.Name)
	}
	return append(all, tier{1, names(labels.MatchNotRegexp, strings.Join(any, "|"))})
}()

// Group is the series that are kept equally long.
type Group struct {
	Keep     time.Duration
	Matchers []*labels.Matcher
}

// Groups returns all groups. A series is in one of them.
func (r Retention) Groups() []Group {
	var groups []Group
	add := func(keep time.Duration, of []*labels.Matcher) {
		for _, t := range tiers {
			groups = append(groups, Group{t.times * keep, append(slices.Clip(of), t.metrics)})
		}
	}
	var wider []*labels.Matcher
	for _, l := range r.givens() {
		names := map[time.Duration][]string{}
		for name, keep := range l.keep {
			names[keep] = append(names[keep], name)
		}
		for _, keep := range slices.Sorted(maps.Keys(names)) {
			add(keep, append(slices.Clip(wider), among(labels.MatchRegexp, l.label, names[keep])))
		}
		if len(l.keep) > 0 {
			wider = append(wider, among(labels.MatchNotRegexp, l.label, slices.Collect(maps.Keys(l.keep))))
		}
	}
	add(r.Default, wider)
	return groups
}

// among returns a matcher of a label being, or not being, one of the names.
func among(how labels.MatchType, label string, names []string) *labels.Matcher {
	slices.Sort(names)
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	return labels.MustNewMatcher(how, label, strings.Join(quoted, "|"))
}
