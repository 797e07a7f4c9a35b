package forecast

import (
	"fmt"
	"math"
	"slices"

	"github.com/gnomon-vm/gnomon/core/pack"
)

// What Save returns begins with this word and version. Whoever changes the
// meaning of what follows raises the version: an older state is then refused,
// and its owner starts anew.
const (
	stateMagic   = "gnfc"
	stateVersion = 3
)

const (
	maxName = 64 // bytes of a model's name in a state
	// maxModels is how many models a state may hold, maxErrors how many errors
	// at one step, maxPart how many bytes one model.
	maxModels = 64
	maxErrors = 4096
	maxPart   = 1 << 20
	maxCount  = 1 << 53
	// maxState bounds what is believed of a sum of losses, a forecast or an
	// error: above all that samples up to maxValue can make, and safe to add.
	maxState = 1e30
	// revived is how many of the newest samples the models see again one by one
	// when a state is loaded: enough for each to be fitted where it was before.
	revived = 4 * refitPeriod
)

// Save returns what Load needs to go on: at a horizon of 10 steps at most 64 KiB.
// The models' parameters are not among it, since they follow from the samples.
func (f *Forecaster) Save() []byte {
	f.Refit()
	c := pack.NewWriter()
	options := f.options
	exchangeOptions(c, &options)
	f.exchange(c)
	return c.Seal(stateMagic, stateVersion)
}

// Load returns a Forecaster that goes on where the one of Save was. Models that
// the state does not know begin as if they had not been ready so far; those that
// are no more are left out.
// The error says what the state is of instead, if it is of other options or
// another version, or what is wrong with it. A damaged or forged state is never
// worse than that.
func Load(o Options, state []byte) (*Forecaster, error) {
	f, err := New(o)
	if err != nil {
		return nil, err
	}
	c, err := pack.Open(stateMagic, stateVersion, state)
	if err != nil {
		return nil, fmt.Errorf("load forecaster: state: %w", err)
	}
	var of Options
	exchangeOptions(c, &of)
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("load forecaster: state: options: %w", err)
	}
	if err := f.options.differ(of); err != nil {
		return nil, fmt.Errorf("load forecaster: %w", err)
	}
	f.exchange(c)
	if err := c.End(); err != nil {
		return nil, fmt.Errorf("load forecaster: state: %w", err)
	}
	if f.series.count > 0 {
		f.weigh()
	}
	return f, nil
}

// differ returns an error that names the first option a state of other options
// differs in.
func (o Options) differ(of Options) error {
	switch {
	case of.Model != o.Model:
		return fmt.Errorf("state is of model %q: want %q", of.Model, o.Model)
	case of.Horizon != o.Horizon:
		return fmt.Errorf("state is of a horizon of %d steps: want %d", of.Horizon, o.Horizon)
	case of.Season != o.Season:
		return fmt.Errorf("state is of a season of %d steps: want %d", of.Season, o.Season)
	case !slices.Equal(of.Seasons, o.Seasons):
		return fmt.Errorf("state is of further seasons %v: want %v", of.Seasons, o.Seasons)
	case !slices.Equal(of.Quantiles, o.Quantiles):
		return fmt.Errorf("state is of quantiles %v: want %v", of.Quantiles, o.Quantiles)
	}
	return nil
}

func exchangeOptions(c *pack.Codec, o *Options) {
	c.Text(&o.Model, maxName)
	c.Int(&o.Horizon, 1, MaxHorizon)
	c.Int(&o.Season, 0, MaxSeason)
	further := len(o.Seasons)
	c.Int(&further, 0, maxSeasons-1)
	if c.Reading() && c.Err() == nil {
		o.Seasons = make([]int, further)
	}
	for i := range o.Seasons {
		c.Int(&o.Seasons[i], 2, MaxSeason)
	}
	c.Floats(&o.Quantiles, maxQuantiles, 0, 1)
}

// exchange writes what was learned, or reads it into a new forecaster.
func (f *Forecaster) exchange(c *pack.Codec) {
	count, ys := f.series.count, f.series.buf
	c.Int(&count, 0, maxCount)
	c.Floats(&ys, window+slack, 0, maxValue)
	if c.Reading() && c.Err() == nil {
		if slices.ContainsFunc(ys, math.IsNaN) || len(ys)-count >= refitPeriod || count > 0 && len(ys) == 0 {
			c.Fail(fmt.Errorf("%d values of %d samples", len(ys), count))
			return
		}
		f.revive(ys, count)
	}
	for i, r := range f.ladder {
		f.mixer.at[i].exchange(c, r)
		f.mixer.at[i].stretch(f.levels)
	}
	if c.Reading() {
		f.forgive()
	}
	f.exchangeModels(c)
	if c.Reading() {
		f.disbelieve()
	}
}

// disbelieve drops losses that no score stands for, which only a forged state
// has.
func (f *Forecaster) disbelieve() {
	for i := range f.mixer.at {
		j := &f.mixer.at[i]
		if j.scores > 0 {
			continue
		}
		j.loss = 0
		for _, t := range f.trackers {
			t.at[i].loss = 0
		}
	}
}

// revive has the models learn the window of a state. Training may have counted up
// to a refit period less than there is.
func (f *Forecaster) revive(ys []float64, count int) {
	s, n := f.series, max(0, len(ys)-min(revived, count))
	if n > 0 {
		s.buf = append(s.buf, ys[:n]...)
		s.count = count - len(ys[n:])
		s.examine()
		f.learn()
	} else {
		s.count = count - len(ys)
	}
	for _, y := range ys[n:] {
		f.Refit()
		s.push(y)
		f.learn()
	}
	f.Refit()
}

// exchangeModels exchanges what is known of each model, by its name.
func (f *Forecaster) exchangeModels(c *pack.Codec) {
	n := len(f.trackers)
	c.Int(&n, 1, maxModels)
	for i := 0; i < n && c.Err() == nil; i++ {
		var name string
		var body []byte
		if !c.Reading() {
			part := pack.NewWriter()
			f.trackers[i].exchange(part)
			name, body = f.trackers[i].name, part.Written()
		}
		c.Text(&name, maxName)
		c.Bytes(&body, maxPart)
		if !c.Reading() || c.Err() != nil {
			continue
		}
		known := slices.IndexFunc(f.trackers, func(t *tracker) bool { return t.name == name })
		if known < 0 {
			continue
		}
		part := pack.NewReader(body)
		f.trackers[known].exchange(part)
		if err := part.End(); err != nil {
			c.Fail(fmt.Errorf("model %s: %w", name, err))
		}
	}
}

// forgive charges every model what the mixer lost, as if it had slept so far.
func (f *Forecaster) forgive() {
	for _, t := range f.trackers {
		for i := range t.at {
			t.at[i].loss = f.mixer.at[i].loss
		}
	}
}

func (t *tracker) exchange(c *pack.Codec) {
	for i, r := range t.ladder {
		p := &t.at[i]
		exchangeStep(c, r)
		c.Float(&p.loss, 0, maxState)
		p.errors.exchange(c)
		n := len(t.levels)
		for slot := range p.points {
			p.exchangePending(c, slot, n)
		}
	}
}

// exchangePending exchanges the forecast that waits in a slot.
func (p *probe) exchangePending(c *pack.Codec, slot, n int) {
	record := make([]float64, 1+n)
	record[0] = p.points[slot]
	for q, v := range p.spreads[slot*n : (slot+1)*n] {
		record[1+q] = float64(v)
	}
	exchangePending(c, record, len(record))
	p.points[slot] = record[0]
	for q, v := range record[1:] {
		p.spreads[slot*n+q] = float32(v)
	}
}

func (j *junction) exchange(c *pack.Codec, r rung) {
	exchangeStep(c, r)
	c.Float(&j.scores, 0, maxState)
	c.Float(&j.loss, 0, maxState)
	for q := range j.moved {
		exchangeBounded(c, &j.moved[q].moved, calibrationBound)
	}
	j.adjust()
	exchangePending(c, j.pending, len(j.moved))
	j.above.exchange(c)
	j.below.exchange(c)
}

// exchange exchanges the excesses; t may be nil, for none.
func (t *tail) exchange(c *pack.Codec) {
	if t == nil {
		return
	}
	t.excesses.exchange(c)
	if t.excesses.n > 0 && t.excesses.at(0) < 0 {
		c.Fail(fmt.Errorf("an excess of %v: want none below 0", t.excesses.at(0)))
		return
	}
	t.fit()
}

// exchangeStep makes sure that what follows is of the same step, followed up as
// often.
func exchangeStep(c *pack.Codec, r rung) {
	step, stride := r.step, r.stride
	c.Int(&step, step, step)
	c.Int(&stride, stride, stride)
}

// exchangeBounded exchanges a value that is kept within a bound, which may have
// been another.
func exchangeBounded(c *pack.Codec, v *float64, bound float64) {
	c.Float(v, -maxState, maxState)
	*v = max(-bound, min(bound, *v))
}

// exchangePending exchanges the forecasts that wait for their outcome, each of
// size values: all of them, or NaN for none.
func exchangePending[F float32 | float64](c *pack.Codec, pending []F, size int) {
	for i := 0; i < len(pending) && c.Err() == nil; i += size {
		record := pending[i : i+size]
		missing := 0
		if math.IsNaN(float64(record[0])) {
			missing = 1
		}
		c.Int(&missing, 0, 1)
		if missing == 1 {
			record[0] = F(math.NaN())
			continue
		}
		for q := range record {
			v := float64(record[q])
			c.Float(&v, -maxState, maxState)
			record[q] = F(v)
		}
	}
}

// exchange exchanges the errors, oldest first; r may be nil, for none.
func (r *residuals) exchange(c *pack.Codec) {
	n := 0
	if r != nil {
		n = int(r.n)
	}
	c.Int(&n, 0, maxErrors)
	for i := 0; i < n && c.Err() == nil; i++ {
		var v float64
		if !c.Reading() {
			v = float64(r.value[(int(r.next)-n+i+residualCap)%residualCap])
		}
		c.Float(&v, -maxState, maxState)
		if c.Reading() && c.Err() == nil && r != nil {
			r.add(v)
		}
	}
}
