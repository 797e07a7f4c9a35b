package lab

import (
	"math"
	"math/cmplx"
	"slices"

	"gonum.org/v1/gonum/dsp/fourier"
	"gonum.org/v1/gonum/stat"
)

const (
	cloudWindow  = 100  // samples that signatures and bursts are sought in
	cloudBursts  = 0.8  // share of the frequencies, the highest, that are bursts
	cloudAlike   = 0.85 // least correlation of a signature's repeats
	cloudStates  = 40   // of the Markov chain
	cloudErrors  = 5    // under-estimates remembered for the remedial padding
	cloudFull    = 0.9  // use over limit from which the limit is corrected at once
	cloudFactor  = 2.0  // most that one correction multiplies by
	cloudRetrain = 3    // under-estimates in a row after which the chain starts anew
)

// cloudscale predicts the next use by a repeating signature or else by a Markov
// chain, pads the prediction by what bursts and recent under-estimates were, and
// multiplies a limit that is nearly used up.
type cloudscale struct {
	factor float64 // of the padding
	sees   bool    // demand rather than usage

	history []float64
	fft     *fourier.FFT
	chain   [cloudStates][cloudStates]float64
	state   int

	predicted float64
	misses    [cloudErrors]float64 // newest last
	row       int                  // under-estimates in a row
}

func newCloudscale(factor float64) *cloudscale {
	return &cloudscale{factor: factor, fft: fourier.NewFFT(cloudWindow), predicted: math.NaN(), state: -1}
}

func (c *cloudscale) next(o observation) float64 {
	x := o.usage
	if c.sees {
		x = o.demand
	}
	c.remember(x)
	c.learn(x, o.ceiling)
	c.predicted = c.predict(o.ceiling)
	to := c.predicted + c.factor*max(c.bursts(), c.remedial())
	if full := min(1, x/max(o.allocation, 1)); full > cloudFull {
		return max(to, o.allocation*(1+(full-cloudFull)/(1-cloudFull)*(cloudFactor-1)))
	}
	return to
}

// remember takes in a use and by how much the prediction was below it.
func (c *cloudscale) remember(x float64) {
	if len(c.history) == cloudWindow {
		c.history = append(c.history[:0], c.history[1:]...)
	}
	c.history = append(c.history, x)
	miss := 0.0
	if x > c.predicted {
		miss = x - c.predicted
	}
	copy(c.misses[:], c.misses[1:])
	c.misses[cloudErrors-1] = miss
	if c.row++; miss == 0 {
		c.row = 0
	}
}

// learn counts a transition of the chain.
func (c *cloudscale) learn(x, ceiling float64) {
	if c.row >= cloudRetrain {
		c.chain, c.row = [cloudStates][cloudStates]float64{}, 0
	}
	state := max(0, min(cloudStates-1, int(x/ceiling*cloudStates)))
	if c.state >= 0 {
		c.chain[c.state][state]++
	}
	c.state = state
}

func (c *cloudscale) predict(ceiling float64) float64 {
	if v, ok := c.signature(); ok {
		return v
	}
	likely := slices.Max(c.chain[c.state][:])
	if likely == 0 {
		return c.history[len(c.history)-1]
	}
	return (float64(slices.Index(c.chain[c.state][:], likely)) + 0.5) / cloudStates * ceiling
}

// signature returns what a pattern that repeats would have come next.
func (c *cloudscale) signature() (float64, bool) {
	if len(c.history) < cloudWindow {
		return 0, false
	}
	spectrum := c.fft.Coefficients(nil, c.history)
	strongest := 2
	for i := 2; i < len(spectrum); i++ {
		if cmplx.Abs(spectrum[i]) > cmplx.Abs(spectrum[strongest]) {
			strongest = i
		}
	}
	period := cloudWindow / strongest
	repeats := cloudWindow / period
	if period < 3 || repeats < 2 {
		return 0, false
	}
	piece := func(i int) []float64 { // from the end
		end := cloudWindow - i*period
		return c.history[end-period : end]
	}
	sum := 0.0
	for i := range repeats {
		sum += piece(i)[0]
		if i > 0 && !(stat.Correlation(piece(0), piece(i), nil) > cloudAlike) {
			return 0, false
		}
	}
	return sum / float64(repeats), true
}

// bursts is the padding for bursts: of the window's highest frequencies alone,
// the most where they are above 0 most of the time, else the 80th percentile.
func (c *cloudscale) bursts() float64 {
	if len(c.history) < cloudWindow {
		return 0
	}
	spectrum := c.fft.Coefficients(nil, c.history)
	for i := range int(float64(len(spectrum)) * (1 - cloudBursts)) {
		spectrum[i] = 0
	}
	burst := c.fft.Sequence(nil, spectrum)
	above := 0
	for i := range burst {
		burst[i] = max(0, burst[i]/cloudWindow)
		if burst[i] > 0 {
			above++
		}
	}
	slices.Sort(burst)
	if 2*above > cloudWindow {
		return burst[cloudWindow-1]
	}
	return burst[int(0.8*cloudWindow)-1]
}

// remedial is the padding for under-estimates: their mean, weighted to the
// newest.
func (c *cloudscale) remedial() float64 {
	sum, weights := 0.0, 0.0
	for i, miss := range c.misses {
		sum += float64(i+1) * miss
		weights += float64(i + 1)
	}
	return sum / weights
}
