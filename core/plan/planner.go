package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/forecast"
)

const (
	kept = 1000 // demands kept per resource
	// maxGap is how many missing samples a gap is made of at most: enough to
	// tell that what came before it is past.
	maxGap = 120
	// leastScale is the least mean allocation, as a part of the ceiling, that
	// waste is measured by.
	leastScale = 1e-3
	// mostUnserved is the share of usage by which demand may exceed it when it
	// is learned.
	mostUnserved = 0.25
	// mostSure is the highest quantile that a reservation for later is sized by:
	// what is rarer is for the next interval only.
	mostSure = 0.95
	// meanFade is how many samples the mean allocation reaches back.
	meanFade = 500
	// phaseApart is between the phases of two resources' fits. Those of the models
	// are multiples of 8.
	phaseApart = 2

	maxInterval = 24 * time.Hour
	maxHorizon  = 366 * 24 * time.Hour
)

// levels are the quantiles that are forecast: a request is sized by the
// distribution they outline.
var levels = []float64{.05, .25, .5, .7, .8, .9, .95, .98, .99, .995, .999}

// Settings are the parameters in force for one VM.
type Settings struct {
	Interval  time.Duration    // between two samples, positive, at most a day
	Horizon   time.Duration    // at least Interval, at most a year; counted in whole intervals, rounded up
	Season    time.Duration    // 0 to find it; so does one that the forecaster cannot take, such as a day
	Model     string           // a name from forecast.Models
	Price     float64          // of a second of shortage, in seconds of the VM's mean allocation, within config's bounds
	Threshold gnomon.Resources // not negative
}

// options returns the forecaster's options. A horizon of more steps than can be
// forecast is cut to what can.
func (s Settings) options() forecast.Options {
	season := 0
	if n := math.Round(s.Season.Seconds() / s.Interval.Seconds()); n >= 2 && n <= forecast.MaxSeason {
		season = int(n)
	}
	steps := s.Horizon / s.Interval
	if s.Horizon%s.Interval > 0 {
		steps++
	}
	steps = min(steps, forecast.MaxHorizon)
	return forecast.Options{Model: s.Model, Horizon: int(steps), Season: season, Quantiles: levels}
}

func (s Settings) validate() error {
	if s.Interval <= 0 || s.Interval > maxInterval {
		return fmt.Errorf("interval %v: want more than 0, at most %v", s.Interval, maxInterval)
	}
	if s.Horizon < s.Interval || s.Horizon > maxHorizon {
		return fmt.Errorf("horizon %v: want at least the interval, %v, at most %v", s.Horizon, s.Interval, maxHorizon)
	}
	if s.Season < 0 {
		return fmt.Errorf("season %v: want 0 or more", s.Season)
	}
	if !(s.Price >= config.MinShortagePrice && s.Price <= config.MaxShortagePrice) {
		return fmt.Errorf("price %v: want %v to %v", s.Price, config.MinShortagePrice, config.MaxShortagePrice)
	}
	for r := range gnomon.AllResources() {
		if s.Threshold[r] < 0 {
			return fmt.Errorf("threshold %s=%d: want 0 or more", r, s.Threshold[r])
		}
	}
	_, err := forecast.New(s.options())
	return err
}

// Observation is one usage event, as pushed to the shadow.
type Observation struct {
	Seq uint64
	At  time.Time
	// Urgent marks an event sent ahead of its interval.
	Urgent bool
	// Known is the set of resources the amounts below are given for.
	Known gnomon.ResourceSet

	Usage, Demand, Allocation, Ceiling gnomon.Resources
}

// Planner forecasts one VM's demand and says what to ask for. It is not safe
// for concurrent use.
type Planner struct {
	settings Settings
	options  forecast.Options
	last     time.Time // end of the newest sample learned
	lanes    [gnomon.NumResources]lane
}

// lane is one resource's part.
type lane struct {
	history    []float64 // oldest first, NaN where missing
	forecaster *forecast.Forecaster
	past       *past
	summary    *summary // of past, while it is used
	expected   *outlook // of the next sample; nil if there is none
	allocation float64  // mean
}

// New returns a Planner that knows nothing of its VM yet.
func New(s Settings) (*Planner, error) {
	p := &Planner{}
	if err := p.Configure(s); err != nil {
		return nil, err
	}
	return p, nil
}

// Configure puts settings in force. If they are refused, those before stay. If
// forecasts depend on what changed, the forecasters are trained anew from the
// demands kept, which are resampled if the interval changed.
func (p *Planner) Configure(s Settings) error {
	if err := s.validate(); err != nil {
		return fmt.Errorf("configure planner: %w", err)
	}
	before, options := p.settings.Interval, s.options()
	same := p.options.Model == options.Model && p.options.Horizon == options.Horizon &&
		p.options.Season == options.Season && slices.Equal(p.options.Quantiles, options.Quantiles)
	p.settings, p.options = s, options
	if same && before == s.Interval {
		return nil
	}
	for i := range p.lanes {
		l := &p.lanes[i]
		if before > 0 && before != s.Interval {
			l.history, l.past = resample(l.history, before, s.Interval), nil
		}
		if l.forecaster != nil {
			l.train(p.of(gnomon.Resource(i)))
		}
	}
	return nil
}

// train replaces the forecaster by one that learned what is kept.
func (l *lane) train(o forecast.Options) {
	f, err := forecast.New(o)
	if err != nil {
		panic(err) // validate accepted the same options
	}
	f.Train(l.history)
	l.forecaster, l.expected = f, nil
	if l.past == nil {
		l.past = newPast()
		for _, demand := range l.history {
			l.past.see(demand)
		}
	}
}

// Train puts past demands of one resource, oldest first and one per interval,
// in place of what is known of it. NaN is a missing one. Those observed from
// then on follow them.
func (p *Planner) Train(r gnomon.Resource, demand []float64) {
	if !r.Valid() {
		return
	}
	l := &p.lanes[r]
	l.history, l.past = slices.Clone(demand[max(0, len(demand)-kept):]), nil
	l.train(p.of(r))
}

// of returns the options of a resource's forecaster: no two are fitted at the same
// sample.
func (p *Planner) of(r gnomon.Resource) forecast.Options {
	o := p.options
	o.Phase = phaseApart * int(r)
	return o
}

// Observe takes in one event and returns what to ask for. The Proposal has no
// VM and no session: who sends it knows them.
func (p *Planner) Observe(o Observation) gnomon.Proposal {
	steps := p.steps(o)
	if steps > 0 {
		p.last = o.At
	}
	out := gnomon.Proposal{Seq: o.Seq, At: o.At}
	for r := range gnomon.AllResources() {
		l := &p.lanes[r]
		if l.forecaster == nil {
			if !o.Known.Has(r) {
				continue
			}
			l.train(p.of(r))
		}
		demand := math.NaN()
		if o.Known.Has(r) {
			demand = learnable(float64(o.Usage[r]), float64(o.Demand[r]))
		}
		for range steps - 1 {
			l.learn(math.NaN())
		}
		if steps > 0 {
			l.learn(demand)
			l.note(o.Known.Has(r), float64(o.Allocation[r]))
		}
		if o.Known.Has(r) {
			out.Wants = append(out.Wants, p.want(r, o))
		}
	}
	return out
}

// Refit finds the models' parameters anew where that is due. It takes up to a
// hundred times as long as an Observe, and the next one does it where nobody did:
// the place for it is after the proposal is sent.
func (p *Planner) Refit() {
	for _, l := range p.lanes {
		if l.forecaster != nil {
			l.forecaster.Refit()
		}
	}
}

// learnable is what there is to learn from a sample. What a VM that is short
// wants is in part what it could not do before, which comes once: of demand
// beyond usage as much counts as a quarter of the usage, or half of the demand.
// The host serves all of it at once, so that the next sample's usage tells.
func learnable(usage, demand float64) float64 {
	return max(usage, min(demand, max(usage*(1+mostUnserved), demand/2)))
}

// steps returns how many samples the event stands for: none if it is urgent or
// comes before half an interval passed, else it and those missing before it.
func (p *Planner) steps(o Observation) int {
	if o.Urgent {
		return 0
	}
	if p.last.IsZero() {
		return 1
	}
	gap := o.At.Sub(p.last)
	if gap < -maxGap*p.settings.Interval {
		return 1 // the clock was set back
	}
	gap = min(gap, (1+maxGap)*p.settings.Interval)
	return int((gap + p.settings.Interval/2) / p.settings.Interval)
}

func (l *lane) learn(demand float64) {
	if len(l.history) >= kept+kept/4 {
		n := copy(l.history, l.history[len(l.history)-kept:])
		l.history = l.history[:n]
	}
	l.history = append(l.history, demand)
	l.forecaster.Update(demand)
	if l.expected != nil && !math.IsNaN(demand) {
		l.past.part = l.expected.learned(demand)
	}
	l.expected = nil
	l.past.see(demand)
}

// note takes an allocation into the mean.
func (l *lane) note(known bool, allocation float64) {
	if known {
		l.allocation += (max(0, allocation) - l.allocation) / min(meanFade, max(1, l.past.samples))
	}
}

func (p *Planner) want(r gnomon.Resource, o Observation) gnomon.Want {
	l := &p.lanes[r]
	f := l.forecaster.Forecast()
	next, then := l.outlooks(f, float64(o.Ceiling[r]))
	if !o.Urgent {
		l.expected = next
	}
	enough, short := l.size(next, then, p.settings)
	want := Decide(Inputs{
		Resource: r, Interval: p.settings.Interval, Horizon: p.settings.Horizon,
		Usage: o.Usage[r], Demand: o.Demand[r], Allocation: o.Allocation[r], Ceiling: o.Ceiling[r],
		Threshold: p.settings.Threshold[r], Quantile: max(0.5, min(mostSure, 1-short)), Forecast: f,
	})
	if least := o.least(r); least > 0 {
		next.exceeds(least)
		then.exceeds(least)
		enough, _ = l.size(next, then, p.settings)
	} else if o.Urgent {
		// The forecast is from before; what is demanded now is the least of the
		// next step. The host serves that at once, so it need not be asked for.
		next.atLeast(float64(o.Demand[r]))
		enough, _ = l.size(next, then, p.settings)
		enough = max(enough, float64(o.Demand[r])*(1+beyond))
	}
	if l.past.samples >= firstSizes {
		want.Enough = amount(enough)
	}
	return want
}

// least returns what demand is known to exceed where more is not known, else 0: a
// queue at a disk's limit does not tell how much more would be done without it,
// nor what waits for a network, of which not more can wait than there is room for.
// An urgent event has seen it grow, so that its estimate counts unless it is near
// its bound, twice the limit. A regular one of a disk, which makes no difference
// between a queue that stays and one that is gone, tells nothing.
func (o Observation) least(r gnomon.Resource) float64 {
	limit, demand := o.Allocation[r], o.Demand[r]
	switch {
	case limit <= 0 || demand <= limit:
		return 0
	case r == gnomon.Disk && o.Urgent:
		return float64(limit)
	case r == gnomon.Network && (!o.Urgent || demand >= limit+limit/10*8):
		return float64(demand)
	}
	return 0
}

// size returns what is enough for the next interval, and how probable it is that
// it is not.
func (l *lane) size(next, then *outlook, s Settings) (enough, short float64) {
	if next.ceiling <= 0 {
		return 0, 0.1
	}
	share := min(1, settling/s.Interval.Seconds())
	return size(next, then, share, max(l.allocation, next.ceiling*leastScale), s.Price)
}

// resample turns samples every before into samples every after that end at the
// same time: means where several fall into one, repeats where one spans several.
func resample(ys []float64, before, after time.Duration) []float64 {
	ratio := float64(after) / float64(before)
	n := int(min(kept, float64(len(ys))/ratio))
	out := make([]float64, n)
	for k := range out {
		// The k-th from the end spans these samples, counted from the end.
		from := int(float64(k) * ratio)
		to := max(from+1, int(float64(k+1)*ratio))
		var sum, present float64
		for i := from; i < min(to, len(ys)); i++ {
			if y := ys[len(ys)-1-i]; !math.IsNaN(y) {
				sum += y
				present++
			}
		}
		out[n-1-k] = sum / present // NaN if all are missing
	}
	return out
}
