package forecast

import "math"

const (
	// sharpness is how strongly losses decide: the learning rate of the
	// exponential weights per independent score, of losses in units of the least.
	sharpness = 1.0
	// overlap is the power of the forecasts that wait for their outcome by which
	// scores count less, since the errors of forecasts that overlap have much in
	// common: 0 if they had nothing, 1 if they were the same.
	overlap = 0.75
	// borrowed is the number of independent scores from which a rung's own
	// decide more than those of the next shorter one.
	borrowed = 3.0
	// ignorable is the weight below which a model is left out.
	ignorable = 0.01
	// minorPrior is the prior weight of a model that priorOf does not know, and
	// misfitPrior that of one that knows no season where one is given.
	minorPrior  = 0.3
	misfitPrior = 0.02
	// worstCredit is the log of the least weight that losses leave.
	worstCredit = -50.0
)

// prior is how much a model counts while there are few scores.
type prior struct {
	plain    float64
	seasonal float64 // with a season in force that the caller gave
}

func (p prior) of(seasonal bool) float64 {
	if seasonal {
		return p.seasonal
	}
	return p.plain
}

// priorOf gives most to smoothing, theta and ARIMA, of which a simple
// combination did as well as any in the M4 competition (Petropoulos and
// Svetunkov 2020); where a season is given, to those of them that follow it.
func priorOf(name string) prior {
	switch name {
	case "theta", "arima":
		return prior{1, 1}
	case "ses", "holt-damped":
		return prior{1, misfitPrior}
	case "holt-winters":
		return prior{1, 0.5}
	case "holt-winters-mul":
		return prior{minorPrior, 0.5}
	case "seasonal-naive", "multi-season":
		return prior{minorPrior, minorPrior}
	}
	return prior{minorPrior, misfitPrior}
}

// mixer combines the models' forecasts: it averages their quantiles level by
// level (Vincent 1912; Ratcliff 1979) with weights of each rung's own,
// exponential in the discounted loss (Hedge: Freund and Schapire 1997; with
// discounts: Chernov and Zhdanov 2010). A rung with few scores borrows from the
// next shorter one, whose outcomes are known sooner. A model that made no
// forecast is charged the mixer's own loss (specialists: Freund et al. 1997), so
// that one that was not ready has neither credit nor debt.
type mixer struct {
	at []junction // per rung
}

// junction is the combination on one rung.
type junction struct {
	pending []float64     // per slot and level: quantiles; NaN if none was made
	moved   []calibration // per level
	levels  []float64     // calibrated, ascending
	above   *tail         // nil if no level there is wanted
	below   *tail
	beyond  []float64 // per level wanted: how far beyond the outermost quantile it lies, in units
	weights []float64 // per tracker, sum 1
	credit  []float64 // per tracker: the log of what losses make its weight, at most 0
	scores  float64   // discounted number
	loss    float64   // discounted sum, as of a probe
	apart   float64   // forecasts between two whose errors have little in common
}

func newMixer(l ladder, lv levels, trackers int) *mixer {
	x := &mixer{at: make([]junction, len(l))}
	for i, r := range l {
		j := &x.at[i]
		j.pending = make([]float64, r.slots*len(lv.tracked))
		for k := range j.pending {
			j.pending[k] = math.NaN()
		}
		j.apart = math.Pow(r.delay(), overlap)
		for _, level := range lv.tracked {
			j.moved = append(j.moved, newCalibration(level, r.delay()))
		}
		j.levels = make([]float64, len(lv.tracked))
		j.above, j.below = newTail(lv.above), newTail(lv.below)
		j.beyond = make([]float64, len(lv.wanted))
		j.stretch(lv)
		j.weights, j.credit = make([]float64, trackers), make([]float64, trackers)
		j.only(naiveIndex)
		j.adjust()
	}
	return x
}

// adjust calibrates the levels, and keeps them in order.
func (j *junction) adjust() {
	least := 0.0
	for q := range j.moved {
		least = max(least, j.moved[q].adjusted())
		j.levels[q] = least
	}
}

// judgeAt takes in the outcome of the forecasts in a slot of rung i.
func (f *Forecaster) judgeAt(i, slot int, y float64) {
	r, j := f.ladder[i], &f.mixer.at[i]
	n := len(j.moved)
	quantiles := j.pending[slot*n : (slot+1)*n]
	if math.IsNaN(quantiles[0]) {
		return
	}
	var own float64
	for q, v := range quantiles {
		own += pinball(j.moved[q].level, y-v)
		j.moved[q].judge(v, y)
	}
	j.adjust()
	j.exceed(f.levels, f.series, quantiles, y)
	j.scores = r.decay*j.scores + 1
	j.loss = r.decay*j.loss + own
	for _, t := range f.trackers {
		loss, ok := t.judge(i, slot, y)
		if !ok {
			loss = own
		}
		t.at[i].loss = r.decay*t.at[i].loss + loss
	}
}

// weigh sets the weights on rung i; shorter is that of the next shorter step, if
// any. Losses are compared as if each were larger by negligible.
func (j *junction) weigh(i int, trackers []*tracker, shorter *junction, seasonal bool, negligible float64) {
	least := math.Inf(1)
	for _, t := range trackers {
		if t.awake {
			least = min(least, t.at[i].loss)
		}
	}
	least += (j.scores + 1) * negligible
	independent := j.scores / j.apart
	most := math.Inf(-1)
	for k, t := range trackers {
		j.credit[k] = -sharpness * independent * max(0, t.at[i].loss/least-1)
		if shorter != nil {
			j.credit[k] += shorter.credit[k] * borrowed / (borrowed + independent)
		}
		if t.awake {
			most = max(most, j.credit[k])
		}
	}
	for k, t := range trackers {
		j.credit[k] = max(worstCredit, min(0, j.credit[k]-most))
		j.weights[k] = 0
		if t.awake {
			j.weights[k] = t.prior.of(seasonal) * math.Exp(j.credit[k])
		}
	}
	normalise(j.weights)
}

// normalise makes weights sum to 1, without those that matter too little.
func normalise(weights []float64) {
	var sum, kept float64
	for _, w := range weights {
		sum += w
	}
	for k, w := range weights {
		if w < ignorable*sum {
			weights[k] = 0
		}
		kept += weights[k]
	}
	for k := range weights {
		weights[k] /= kept
	}
}

// only gives all weight to one model.
func (j *junction) only(k int) {
	clear(j.weights)
	j.weights[k] = 1
}

// leader returns the index of the model that counts most: the fallback unless
// another counts more and loses less.
func (x *mixer) leader(trackers []*tracker) int {
	best, most := naiveIndex, 0.0
	for k := range trackers {
		var sum float64
		for i := range x.at {
			sum += x.at[i].weights[k]
		}
		if sum > most && (k == naiveIndex || x.beats(k, trackers)) {
			best, most = k, sum
		}
	}
	return best
}

// beats reports whether a model is configured or loses less than the fallback.
func (x *mixer) beats(k int, trackers []*tracker) bool {
	var own, other float64
	for i := range x.at {
		if x.at[i].weights[k] == 1 {
			return true
		}
		if x.at[i].scores > 0 {
			own += trackers[k].at[i].loss / x.at[i].scores
			other += trackers[naiveIndex].at[i].loss / x.at[i].scores
		}
	}
	return own < other*(1-1e-6)
}
