package forecast

import "math"

// unbiased is the number of independent errors from which their median is
// believed more than that there is no bias.
const unbiased = 8.0

// tracker is a model whose forecasts are followed up on the rungs of a ladder:
// it keeps those whose outcome is not known yet, and from the outcomes the
// errors and the recent loss.
type tracker struct {
	model  model
	own    distribution // the model, if it gives quantiles of its own
	name   string
	prior  prior
	levels []float64
	ladder ladder
	at     []probe // per rung

	// What it forecasts from the newest sample.
	awake   bool
	path    []float64
	known   int       // steps of path that hold
	around  []float64 // per rung and level: what spreads gives for the calibrated levels
	settled bool      // around holds
}

// probe is what a tracker knows of one rung.
type probe struct {
	points  []float64 // per slot; NaN if none was made
	spreads []float32 // per slot and level: quantiles less the point
	errors  *residuals
	loss    float64 // discounted sum of pinball losses
}

func newTracker(name string, m model, horizon int, l ladder, levels []float64) *tracker {
	t := &tracker{model: m, name: name, prior: priorOf(name), levels: levels, ladder: l, at: make([]probe, len(l))}
	t.own, _ = m.(distribution)
	for i, r := range l {
		p := &t.at[i]
		p.points = make([]float64, r.slots)
		p.spreads = make([]float32, r.slots*len(levels))
		for k := range p.points {
			p.points[k] = math.NaN()
		}
		if t.own == nil {
			p.errors = &residuals{}
		}
	}
	t.path = make([]float64, horizon)
	t.around = make([]float64, len(l)*len(levels))
	return t
}

// judge takes in the outcome of the forecast in a slot and returns its pinball
// loss, and false if there was none.
func (t *tracker) judge(rung, slot int, y float64) (loss float64, ok bool) {
	p := &t.at[rung]
	point := p.points[slot]
	if math.IsNaN(point) {
		return 0, false
	}
	over := y - point
	if p.errors != nil {
		p.errors.add(over)
	}
	for q, spread := range p.spreads[slot*len(t.levels) : (slot+1)*len(t.levels)] {
		loss += pinball(t.levels[q], over-float64(spread))
	}
	return loss, true
}

// pinball is the loss of a quantile that the outcome exceeds by over.
func pinball(level, over float64) float64 { return max(level*over, (level-1)*over) }

// look makes the tracker forecast the steps up to longest from the newest
// sample, once per sample.
func (t *tracker) look(s *series, longest int) {
	if longest <= t.known || !t.awake {
		return
	}
	t.model.path(s, t.path[:longest])
	lo, hi := s.bounds()
	for k, v := range t.path[:longest] {
		if math.IsNaN(v) { // overflowed on the way
			v = s.last()
		}
		t.path[k] = min(hi, max(lo, v))
	}
	t.known = longest
}

// follow keeps the forecasts of the newest sample that are to be judged. scratch
// has room for one value per level.
func (t *tracker) follow(s *series, scratch []float64) {
	for i, r := range t.ladder {
		slot, ok := r.slot(s.count)
		if !ok {
			continue
		}
		p := &t.at[i]
		p.points[slot] = math.NaN()
		if !t.awake {
			continue
		}
		p.points[slot] = t.path[r.step-1]
		t.spreads(s, i, t.levels, scratch)
		for q, v := range scratch {
			p.spreads[slot*len(t.levels)+q] = float32(v)
		}
	}
}

// spreads writes what to add to the point forecast at a rung for the quantile of
// each level. While no errors are known there those of the next shorter step are
// taken, widened as a random walk's would be, but at most twofold. That the points
// are too low or too high in the middle is believed the less, the fewer errors
// there are that do not overlap.
func (t *tracker) spreads(s *series, rung int, levels, dst []float64) {
	step := t.ladder[rung].step
	if t.own != nil {
		t.own.quantiles(s, step, levels, dst)
		for q := range dst {
			dst[q] -= t.path[step-1]
		}
		return
	}
	known := rung
	for known > 0 && t.at[known].errors.n == 0 {
		known--
	}
	errors, wider := t.at[known].errors, 1.0
	if known < rung {
		wider = min(2, math.Sqrt(float64(step)/float64(t.ladder[known].step)))
	}
	independent := float64(errors.n) / t.ladder[known].delay()
	bias := errors.quantile(0.5) * unbiased / (unbiased + independent)
	for q, level := range levels {
		dst[q] = (errors.quantile(level) - bias) * wider
	}
}

// settle makes around hold for the newest sample. It is not for a model with
// quantiles of its own.
func (t *tracker) settle(s *series, x *mixer) {
	if t.settled {
		return
	}
	t.settled = true
	n := len(t.levels)
	for i := range t.ladder {
		t.spreads(s, i, x.at[i].levels, t.around[i*n:(i+1)*n])
	}
}
