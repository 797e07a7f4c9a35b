package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gnomon-vm/gnomon"
)

// NamedLayer is the values set at one scope, as text, by key.
type NamedLayer struct {
	Scope  Scope
	Name   string // of the account, host or VM; "" for global
	Values map[string]string
}

// Origin names the layer as parameters tell where they come from: "global",
// "account acme".
func (l NamedLayer) Origin() string {
	if l.Name == "" {
		return string(l.Scope)
	}
	return string(l.Scope) + " " + l.Name
}

// Problem is one value that cannot be used.
type Problem struct {
	Origin string // the layer, "" when a layer is validated by itself
	Key    string
	Value  string
	Detail string // what is wrong and what is allowed
}

// Error tells the layer, the key, the value and what is allowed.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Origin != "" {
		b.WriteString(p.Origin + ": ")
	}
	b.WriteString(p.Key)
	if p.Value != "" {
		v := p.Value
		if len(v) > 80 {
			v = v[:80] + "…"
		}
		fmt.Fprintf(&b, " = %q", v)
	}
	return b.String() + ": " + p.Detail
}

// Validate checks the values of one layer, each by itself, and returns every
// problem joined, each a *Problem.
func Validate(scope Scope, layer map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(layer)) {
		p := defaults
		if problem := apply(&p, scope, key, layer[key]); problem != nil {
			errs = append(errs, problem)
		}
	}
	return errors.Join(errs...)
}

// apply reads one value into p; on a problem it leaves p as it was.
func apply(p *Parameters, scope Scope, key, value string) *Problem {
	problem := &Problem{Key: key, Value: value}
	k, ok := Lookup(key)
	switch {
	case !ok:
		problem.Detail = "unknown parameter"
		if s := suggest(key); s != "" {
			problem.Detail += fmt.Sprintf(", did you mean %q?", s)
		} else {
			problem.Detail += `; "gnomon config schema" lists all`
		}
		return problem
	case scope.rank() < 0:
		problem.Detail = fmt.Sprintf("unknown scope %q: want %s", scope, orList(Scopes()))
		return problem
	case !k.AllowedAt(scope):
		problem.Detail = fmt.Sprintf("cannot be set for one %s, only %s", scope, scopeList(k.Scopes))
		return problem
	case len(value) > maxValueLength:
		problem.Detail = fmt.Sprintf("too long: %d bytes, want at most %d", len(value), maxValueLength)
		return problem
	}
	// A part that is left out has its default, not what a wider layer says:
	// a value means the same wherever it is set.
	fresh := defaults
	if err := k.codec.read(strings.TrimSpace(value), &fresh); err != nil {
		problem.Detail = err.Error()
		return problem
	}
	k.codec.copy(&fresh, p)
	return nil
}

func scopeList(scopes []Scope) string {
	words := make([]string, len(scopes))
	for i, s := range scopes {
		words[i] = "per " + string(s)
		if s == Global {
			words[i] = "globally"
		}
	}
	return orList(words)
}

// Merge combines layers into effective parameters: a narrower scope overrides
// a wider one, whatever the order given; of two layers of one scope the later
// wins. The map tells for every key which layer set it, or "default".
//
// The parameters are always usable: a value with a problem is passed over for
// what the layers before it gave, and where values do not fit together, those
// of the narrowest layer concerned are. The error joins every *Problem.
func Merge(layers ...NamedLayer) (Parameters, map[string]string, error) {
	p := defaults
	origin := make(map[string]string, len(schema))
	for _, k := range schema {
		origin[k.Name] = "default"
	}
	ordered := slices.Clone(layers)
	slices.SortStableFunc(ordered, func(a, b NamedLayer) int { return a.Scope.rank() - b.Scope.rank() })

	var errs []error
	for _, l := range ordered {
		next, set, problems := applyLayer(p, l)
		for _, problem := range problems {
			problem.Origin = l.Origin()
			errs = append(errs, problem)
		}
		p = next
		for _, key := range set {
			origin[key] = l.Origin()
		}
	}
	return p, origin, errors.Join(errs...)
}

// applyLayer returns base with the usable values of the layer, and their keys.
func applyLayer(base Parameters, l NamedLayer) (next Parameters, set []string, problems []*Problem) {
	next = base
	for _, key := range slices.Sorted(maps.Keys(l.Values)) {
		if problem := apply(&next, l.Scope, key, l.Values[key]); problem != nil {
			problems = append(problems, problem)
			continue
		}
		set = append(set, key)
	}
	// The values before this layer fit together, so dropping a misfit's keys
	// again and again ends.
	for {
		m := next.misfit()
		if m == nil {
			return next, set, problems
		}
		problem := &Problem{Detail: m.detail}
		for _, key := range m.keys {
			i := slices.Index(set, key)
			if i < 0 {
				continue
			}
			if problem.Key == "" {
				problem.Key, problem.Value = key, l.Values[key]
			}
			set = slices.Delete(set, i, i+1)
			schema[schemaIndex[key]].codec.copy(&base, &next)
		}
		problems = append(problems, problem)
	}
}

// misfit is a relation between parameters that does not hold.
type misfit struct {
	keys   []string
	detail string
}

// maxSteps bounds the forecast's length, in intervals.
const maxSteps = 1000

// misfit returns the first relation that does not hold, nil if all do.
func (p *Parameters) misfit() *misfit {
	interval := FormatDuration(p.MonitoringInterval)
	timing := []string{"predictionHorizon", "monitoringInterval"}
	switch {
	case p.PredictionHorizon < p.MonitoringInterval:
		return &misfit{timing, fmt.Sprintf("predictionHorizon (%s) must be at least monitoringInterval (%s)", FormatDuration(p.PredictionHorizon), interval)}
	case p.PredictionHorizon/maxSteps > p.MonitoringInterval ||
		p.PredictionHorizon/maxSteps == p.MonitoringInterval && p.PredictionHorizon%maxSteps != 0:
		return &misfit{timing, fmt.Sprintf("predictionHorizon (%s) must be at most %d times monitoringInterval (%s)", FormatDuration(p.PredictionHorizon), maxSteps, interval)}
	case p.ForecastSeason != 0 && p.ForecastSeason/2 < p.MonitoringInterval:
		return &misfit{[]string{"forecast.season", "monitoringInterval"}, fmt.Sprintf("forecast.season (%s) must be 0 or at least twice monitoringInterval (%s)", FormatDuration(p.ForecastSeason), interval)}
	case p.HistoryRetentionPeriod < 2*p.MonitoringInterval:
		return &misfit{[]string{"historyRetentionPeriod", "monitoringInterval"}, fmt.Sprintf("historyRetentionPeriod (%s) must be at least twice monitoringInterval (%s)", FormatDuration(p.HistoryRetentionPeriod), interval)}
	}
	if m := p.sizeMisfit(); m != nil {
		return m
	}
	for r := range gnomon.AllResources() {
		if floor, ceiling := p.Floor[r], p.Ceiling[r]; ceiling != 0 && floor > ceiling {
			return &misfit{[]string{"limits.floor", "limits.ceiling"}, fmt.Sprintf("the %s of limits.floor (%s) must be at most that of limits.ceiling (%s)", r, exact(r, floor), exact(r, ceiling))}
		}
	}
	return nil
}

func (p *Parameters) sizeMisfit() *misfit {
	keys := []string{"shadow.baseResources", "shadow.maxResources"}
	for _, c := range []struct {
		r         gnomon.Resource
		base, max int64
	}{
		{gnomon.CPU, p.ShadowBase.CPU, p.ShadowMax.CPU},
		{gnomon.Memory, p.ShadowBase.Memory, p.ShadowMax.Memory},
	} {
		if c.base > c.max {
			return &misfit{keys, fmt.Sprintf("the %s of shadow.baseResources (%s) must be at most that of shadow.maxResources (%s)", c.r, exact(c.r, c.base), exact(c.r, c.max))}
		}
	}
	return nil
}
