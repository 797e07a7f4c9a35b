package forecast

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	// MaxHorizon is the largest Options.Horizon, in steps.
	MaxHorizon = 3600
	// MaxSeason is the longest season that can be given or found, in steps.
	MaxSeason = maxPeriod

	maxQuantiles = 16
	maxPhase     = 255
	// replayed is how many of the last training samples are also forecast
	// before they are learned, to have scores from the start.
	replayed = 256
)

// Options configure a Forecaster.
type Options struct {
	// Model is a name from Models; empty means auto.
	Model string
	// Horizon is how many steps to forecast, 1 to MaxHorizon.
	Horizon int
	// Season is the length of the season in steps, 2 to MaxSeason; 0 to find it.
	Season int
	// Seasons are further ones beside Season, at most 2; none to find them. Each
	// is used from two of its lengths on.
	Seasons []int
	// Quantiles are the levels to forecast: ascending, between 0 and 1, at most
	// 16; empty means 0.1, 0.5, 0.9, 0.95.
	Quantiles []float64
	// Phase shifts the samples at which models are fitted, 0 to 255, so that the
	// fits of several forecasters need not meet. A state is none of it.
	Phase int
}

func (o Options) validate() error {
	if !slices.Contains(Models(), o.Model) {
		return fmt.Errorf("model %q unknown: want one of %s", o.Model, strings.Join(Models(), ", "))
	}
	if o.Horizon < 1 || o.Horizon > MaxHorizon {
		return fmt.Errorf("horizon %d out of range: want 1 to %d steps", o.Horizon, MaxHorizon)
	}
	if o.Season != 0 && (o.Season < 2 || o.Season > MaxSeason) {
		return fmt.Errorf("season %d out of range: want 0 (find it) or 2 to %d steps", o.Season, MaxSeason)
	}
	if err := o.validateFurther(); err != nil {
		return err
	}
	if o.Phase < 0 || o.Phase > maxPhase {
		return fmt.Errorf("phase %d out of range: want 0 to %d samples", o.Phase, maxPhase)
	}
	if len(o.Quantiles) > maxQuantiles {
		return fmt.Errorf("quantiles: %d given: want at most %d", len(o.Quantiles), maxQuantiles)
	}
	last := 0.0
	for _, q := range o.Quantiles {
		if !(q > last && q < 1) {
			return fmt.Errorf("quantiles %v: want ascending values between 0 and 1", o.Quantiles)
		}
		last = q
	}
	return nil
}

func (o Options) validateFurther() error {
	if len(o.Seasons) >= maxSeasons {
		return fmt.Errorf("seasons %v: %d given beside the main one: want at most %d", o.Seasons, len(o.Seasons), maxSeasons-1)
	}
	if len(o.Seasons) > 0 && o.Season == 0 {
		return fmt.Errorf("seasons %v: want a main season too", o.Seasons)
	}
	for i, season := range o.Seasons {
		if season < 2 || season > MaxSeason {
			return fmt.Errorf("seasons %v: %d out of range: want 2 to %d steps", o.Seasons, season, MaxSeason)
		}
		if season == o.Season || slices.Contains(o.Seasons[:i], season) {
			return fmt.Errorf("seasons %v beside %d: %d given twice", o.Seasons, o.Season, season)
		}
	}
	return nil
}

// Forecast is what a Forecaster expects, in the unit of the samples. No value
// is negative, NaN or infinite.
type Forecast struct {
	// Model is the name of the model used, never auto.
	Model string
	// Levels are the quantiles' levels, ascending; not to be changed.
	Levels []float64
	// Mean holds the point forecast per step, which under auto is the median;
	// element 0 is the next sample.
	Mean []float64
	// Quantiles holds per step one value per level, ascending.
	Quantiles [][]float64
}

// Forecaster learns one series and forecasts it. It is not safe for concurrent
// use. Its memory is bounded by its Options.
type Forecaster struct {
	options  Options
	series   *series
	levels   levels
	ladder   ladder
	trackers []*tracker // the fallback first
	mixer    *mixer
	due      bool // whether Refit has not been called since the newest sample

	between, scratch []float64 // one value per level followed up
}

// New returns a Forecaster that knows nothing yet. The error names the field,
// its value and what is allowed.
func New(o Options) (*Forecaster, error) {
	if o.Model == "" {
		o.Model = Auto
	}
	if len(o.Quantiles) == 0 {
		o.Quantiles = []float64{0.1, 0.5, 0.9, 0.95}
	}
	o.Quantiles, o.Seasons = slices.Clone(o.Quantiles), slices.Clone(o.Seasons)
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("configure forecaster: %w", err)
	}
	f := &Forecaster{options: o}
	f.reset()
	return f, nil
}

func (f *Forecaster) reset() {
	o := f.options
	f.series = newSeries(o.Season)
	f.series.further, f.series.phase = o.Seasons, o.Phase
	f.levels = newLevels(o.Quantiles)
	f.ladder = newLadder(o.Horizon)
	f.trackers, f.due = nil, false
	for i, c := range catalogue {
		if o.Model == Auto || o.Model == c.name || i == naiveIndex {
			f.trackers = append(f.trackers, newTracker(c.name, c.make(), o.Horizon, f.ladder, f.levels.tracked))
		}
	}
	f.mixer = newMixer(f.ladder, f.levels, len(f.trackers))
	n := len(f.levels.tracked)
	f.between, f.scratch = make([]float64, n), make([]float64, n)
}

// Train forgets everything and learns the history ys, oldest first. Samples are
// as for Update. Only about the newest thousand count.
func (f *Forecaster) Train(ys []float64) {
	f.reset()
	ys = ys[max(0, len(ys)-window-replayed):]
	bulk := max(0, len(ys)-replayed)
	for _, y := range ys[:bulk] {
		if y, ok := f.clean(y); ok || f.series.count > 0 {
			f.series.append(y)
		}
	}
	if f.series.count > 0 {
		f.series.examine()
		// Start at a multiple of the refit period, so that every model fits soon.
		f.series.count -= f.series.count % refitPeriod
		f.learn()
	}
	for _, y := range ys[bulk:] {
		f.Update(y)
	}
	f.Refit()
}

// clean returns the value to take in for a sample, and false if the sample is
// missing and the value a guess.
func (f *Forecaster) clean(y float64) (float64, bool) {
	if math.IsNaN(y) || math.IsInf(y, 0) {
		return f.series.impute(), false
	}
	return min(maxValue, max(0, y)), true
}

// Update takes in the next sample. NaN and infinities count as missing: time
// goes on and nothing is learned of the models' errors. Negative values count
// as 0. Missing samples before the first one are ignored.
func (f *Forecaster) Update(y float64) {
	y, ok := f.clean(y)
	if !ok && f.series.count == 0 {
		return
	}
	if ok {
		f.judge(y)
	}
	f.Refit()
	f.series.push(y)
	f.learn()
	if f.series.count < refitPeriod { // there is little to go by: a fit counts at once
		f.Refit()
	}
	f.issue()
}

// Refit finds anew the parameters of the models of which that is due. It takes up
// to a hundred times as long as an Update, and the next Update does it where nobody
// did: who is in a hurry for a forecast calls it after that.
func (f *Forecaster) Refit() {
	if !f.due {
		return
	}
	f.due = false
	fitted := false
	for _, t := range f.trackers {
		fitted = t.model.refit(f.series) || fitted
	}
	if fitted {
		f.wake()
		f.weigh()
	}
}

// judge compares the forecasts of the next sample with its value.
func (f *Forecaster) judge(y float64) {
	for i, r := range f.ladder {
		if slot, ok := r.slot(f.series.count + 1 - r.step); ok {
			f.judgeAt(i, slot, y)
		}
	}
}

func (f *Forecaster) learn() {
	for _, t := range f.trackers {
		t.model.observe(f.series)
		t.settled = false
	}
	f.due = true
	f.wake()
}

// wake says which models may forecast, from the newest sample anew.
func (f *Forecaster) wake() {
	for _, t := range f.trackers {
		t.known, t.awake = 0, t.model.ready(f.series)
	}
}

// issue weighs the models and makes the forecasts to be judged later.
func (f *Forecaster) issue() {
	s := f.series
	f.weigh()
	longest := f.ladder.longest(s.count)
	for _, t := range f.trackers {
		t.look(s, longest)
		t.follow(s, f.scratch)
	}
	n := len(f.levels.tracked)
	for i, r := range f.ladder {
		if slot, ok := r.slot(s.count); ok {
			f.combine(r.step, f.mixer.at[i].pending[slot*n:(slot+1)*n])
		}
	}
}

// weigh says how much each model counts: by the losses under auto, else the one
// configured as soon as it is ready.
func (f *Forecaster) weigh() {
	negligible := 1e-9*f.series.hi + math.SmallestNonzeroFloat64
	last := len(f.trackers) - 1
	for i := range f.mixer.at {
		switch {
		case f.options.Model == Auto:
			var shorter *junction
			if i > 0 {
				shorter = &f.mixer.at[i-1]
			}
			f.mixer.at[i].weigh(i, f.trackers, shorter, f.series.season > 0 && f.series.period > 0, negligible)
		case f.trackers[last].awake:
			f.mixer.at[i].only(last)
		default:
			f.mixer.at[i].only(naiveIndex)
		}
	}
}

// combine writes the combined quantiles of a step, those followed up, and
// returns the point forecast: their median, or the model's own if only one
// counts. The models have looked that far.
func (f *Forecaster) combine(step int, dst []float64) float64 {
	s := f.series
	i, k, far := f.ladder.between(step)
	a, b := &f.mixer.at[i], &f.mixer.at[k]
	base := s.last() // what all agree on comes out exactly
	clear(dst)
	n := len(dst)
	var point float64
	for m, t := range f.trackers {
		w := a.weights[m]*(1-far) + b.weights[m]*far
		if w == 0 {
			continue
		}
		mid := t.path[step-1]
		point += w * (mid - base)
		if t.own != nil {
			for q := range f.between {
				f.between[q] = a.levels[q]*(1-far) + b.levels[q]*far
			}
			t.own.quantiles(s, step, f.between, f.scratch)
			for q, v := range f.scratch {
				dst[q] += w * (v - base)
			}
			continue
		}
		t.settle(s, f.mixer)
		near, beyond := t.around[i*n:(i+1)*n], t.around[k*n:(k+1)*n]
		for q := range dst {
			dst[q] += w * (mid + near[q]*(1-far) + beyond[q]*far - base)
		}
	}
	least := 0.0
	for q, v := range dst {
		dst[q] = min(maxValue, max(least, base+v))
		least = dst[q]
	}
	if f.options.Model == Auto {
		return dst[f.levels.median]
	}
	return min(maxValue, max(0, base+point))
}

// read writes the quantiles wanted of a step, given those followed up.
func (f *Forecaster) read(step int, tracked, dst []float64) {
	i, k, far := f.ladder.between(step)
	a, b := &f.mixer.at[i], &f.mixer.at[k]
	last, median := len(tracked)-1, tracked[f.levels.median]
	_, most := f.series.bounds()
	for q, at := range f.levels.at {
		v := tracked[at]
		switch beyond := a.beyond[q]*(1-far) + b.beyond[q]*far; {
		case beyond > 0:
			v += min(max(0, most-v), beyond*f.series.unit(tracked[last]-median))
		case beyond < 0:
			v += beyond * f.series.unit(median-tracked[0])
		}
		dst[q] = max(0, v)
	}
}

// Forecast returns the forecast of the next Horizon samples. Before the first
// sample it is zero.
func (f *Forecaster) Forecast() Forecast {
	h, n := f.options.Horizon, len(f.options.Quantiles)
	out := Forecast{Model: f.trackers[f.mixer.leader(f.trackers)].name, Levels: f.options.Quantiles, Mean: make([]float64, h), Quantiles: make([][]float64, h)}
	flat := make([]float64, h*n)
	for k := range out.Quantiles {
		out.Quantiles[k] = flat[k*n : (k+1)*n : (k+1)*n]
	}
	if f.series.count == 0 {
		return out
	}
	for _, t := range f.trackers {
		t.look(f.series, h)
	}
	tracked := make([]float64, len(f.levels.tracked))
	for k := range out.Mean {
		out.Mean[k] = f.combine(k+1, tracked)
		f.read(k+1, tracked, out.Quantiles[k])
	}
	return out
}
