// Package plan turns forecasts of a VM's demand into what its shadow asks for,
// and says how large the shadow itself should be.
//
// Decide is the rule for one resource. ShadowSize is the rule for the shadow. A
// Planner ties one VM's forecasters to Decide: it is fed every usage event in
// the order of their times and answers each with a Proposal.
//
// A Planner keeps the newest thousand demands of each resource. It takes
// missing events as missing samples, at most maxGap of them; an event ahead of
// its interval, urgent or not, is answered but not learned from, because it
// covers less than an interval. When a setting that the forecasts depend on
// changes, it trains new forecasters from what it kept: nothing is forgotten.
//
// Everything here is pure: time is a field of what comes in.
package plan
