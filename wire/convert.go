package wire

import (
	"fmt"
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// ResourceTo returns the message form of a resource.
func ResourceTo(r gnomon.Resource) agentpb.Resource { return agentpb.Resource(r) + 1 }

// ResourceFrom returns the resource, or an error for an unknown one.
func ResourceFrom(r agentpb.Resource) (gnomon.Resource, error) {
	if r < agentpb.Resource_RESOURCE_CPU || int(r) > gnomon.NumResources {
		return 0, fmt.Errorf("unknown resource %d", int32(r))
	}
	return gnomon.Resource(r - 1), nil
}

// ProposalTo returns the message form of a proposal. VM, session and time stay
// behind: the host knows them itself and takes no agent's word.
func ProposalTo(p gnomon.Proposal) *agentpb.Proposal {
	m := &agentpb.Proposal{Seq: p.Seq}
	for _, w := range p.Wants {
		m.Wants = append(m.Wants, &agentpb.Want{
			Resource: ResourceTo(w.Resource),
			Low:      w.Low, Median: w.Median, High: w.High, Level: w.Level,
			Enough: w.Enough, NeedInNs: int64(w.NeedIn), LifetimeNs: int64(w.Lifetime), Model: w.Model,
		})
	}
	return m
}

// ProposalFrom returns the proposal that an agent sent for vm in a session at a
// time, after checking it. The error wraps ErrMalformed.
func ProposalFrom(vm gnomon.VMID, session uint64, at time.Time, m *agentpb.Proposal) (gnomon.Proposal, error) {
	if err := checkProposal(m); err != nil {
		return gnomon.Proposal{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	p := gnomon.Proposal{VM: vm, Session: session, Seq: m.GetSeq(), At: at}
	for _, w := range m.GetWants() {
		p.Wants = append(p.Wants, gnomon.Want{
			Resource: gnomon.Resource(w.GetResource() - 1),
			Low:      w.GetLow(), Median: w.GetMedian(), High: w.GetHigh(), Level: w.GetLevel(),
			Enough: w.GetEnough(), NeedIn: time.Duration(w.GetNeedInNs()), Lifetime: time.Duration(w.GetLifetimeNs()), Model: modelFrom(w.GetModel()),
		})
	}
	return p, nil
}

// maxModel is the longest name of a model, in bytes.
const maxModel = 32

// modelFrom returns the name of a model, or none if it is not plain: it is shown
// to people, on terminals too.
func modelFrom(name string) string {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return ""
		}
	}
	if len(name) > maxModel {
		return ""
	}
	return name
}

// AnswerTo returns the message form of an answer, without VM, session and the
// numbers of reservations.
func AnswerTo(a gnomon.Answer) *agentpb.Answer {
	m := &agentpb.Answer{Seq: a.Seq}
	for _, g := range a.Grants {
		m.Grants = append(m.Grants, &agentpb.Grant{
			Resource: ResourceTo(g.Resource), Asked: g.Asked, Got: g.Got,
			Verdict: string(g.Verdict), Reason: g.Reason, ExpiresUnixNano: unixNano(g.Expires),
		})
	}
	return m
}

// AnswerFrom returns the answer to a proposal, or an error for an unknown
// resource.
func AnswerFrom(m *agentpb.Answer) (gnomon.Answer, error) {
	a := gnomon.Answer{Seq: m.GetSeq()}
	for _, g := range m.GetGrants() {
		r, err := ResourceFrom(g.GetResource())
		if err != nil {
			return gnomon.Answer{}, fmt.Errorf("%w: answer: %w", ErrMalformed, err)
		}
		a.Grants = append(a.Grants, gnomon.Grant{
			Resource: r, Asked: g.GetAsked(), Got: g.GetGot(),
			Verdict: gnomon.Verdict(g.GetVerdict()), Reason: g.GetReason(), Expires: fromUnixNano(g.GetExpiresUnixNano()),
		})
	}
	return a, nil
}

// Usage is one pushed event: a sample, and how high each resource may go.
type Usage struct {
	Seq     uint64
	Sample  gnomon.Sample
	Ceiling gnomon.Resources
}

// UsageTo returns the message form of a usage event: the resources its sample
// knows, without the VM.
func UsageTo(u Usage) *agentpb.Usage {
	m := &agentpb.Usage{
		Seq: u.Seq, Urgent: u.Sample.Urgent,
		AtUnixNano: unixNano(u.Sample.At), IntervalNs: int64(u.Sample.Interval),
	}
	for r := range gnomon.AllResources() {
		if !u.Sample.Known.Has(r) {
			continue
		}
		m.Resources = append(m.Resources, &agentpb.ResourceUsage{
			Resource: ResourceTo(r), Usage: u.Sample.Usage[r], Demand: u.Sample.Demand[r],
			Allocation: u.Sample.Allocation[r], Ceiling: u.Ceiling[r], StarvedNs: int64(u.Sample.Starved[r]),
		})
	}
	return m
}

// UsageFrom returns the usage event of vm, or an error for an unknown resource.
func UsageFrom(vm gnomon.VMID, m *agentpb.Usage) (Usage, error) {
	u := Usage{Seq: m.GetSeq(), Sample: gnomon.Sample{
		VM: vm, Urgent: m.GetUrgent(), At: fromUnixNano(m.GetAtUnixNano()), Interval: time.Duration(m.GetIntervalNs()),
	}}
	for _, x := range m.GetResources() {
		r, err := ResourceFrom(x.GetResource())
		if err != nil {
			return Usage{}, fmt.Errorf("%w: usage: %w", ErrMalformed, err)
		}
		u.Sample.Known = u.Sample.Known.With(r)
		u.Sample.Usage[r], u.Sample.Demand[r] = x.GetUsage(), x.GetDemand()
		u.Sample.Allocation[r], u.Ceiling[r] = x.GetAllocation(), x.GetCeiling()
		u.Sample.Starved[r] = time.Duration(x.GetStarvedNs())
	}
	return u, nil
}

// Settings are what an agent is told of its VM's parameters.
type Settings struct {
	MonitoringInterval time.Duration
	PredictionHorizon  time.Duration
	Thresholds         gnomon.Resources
	Model              string        // auto or a model's name
	Price              float64       // of shortage, above 0
	Season             time.Duration // 0 to find it
}

// SettingsTo returns the message form of settings.
func SettingsTo(s Settings) *agentpb.Settings {
	return &agentpb.Settings{
		MonitoringIntervalNs: int64(s.MonitoringInterval), PredictionHorizonNs: int64(s.PredictionHorizon),
		Thresholds: s.Thresholds[:], Model: s.Model, Price: s.Price, SeasonNs: int64(s.Season),
	}
}

// SettingsFrom returns the settings, or an error for values that an agent
// cannot work with.
func SettingsFrom(m *agentpb.Settings) (Settings, error) {
	s := Settings{
		MonitoringInterval: time.Duration(m.GetMonitoringIntervalNs()), PredictionHorizon: time.Duration(m.GetPredictionHorizonNs()),
		Model: m.GetModel(), Price: m.GetPrice(), Season: time.Duration(m.GetSeasonNs()),
	}
	if s.MonitoringInterval <= 0 || s.PredictionHorizon < s.MonitoringInterval || s.Season < 0 {
		return Settings{}, fmt.Errorf("%w: settings: interval %v, horizon %v, season %v",
			ErrMalformed, s.MonitoringInterval, s.PredictionHorizon, s.Season)
	}
	if !(s.Price > 0 && s.Price <= math.MaxFloat64) {
		return Settings{}, fmt.Errorf("%w: settings: price %v", ErrMalformed, s.Price)
	}
	// A host of another version may know more resources, or fewer.
	copy(s.Thresholds[:], m.GetThresholds())
	return s, nil
}

// unixNano maps the zero time to 0 and back, which UnixNano does not.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
