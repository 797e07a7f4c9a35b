package forecast

import "gonum.org/v1/gonum/dsp/fourier"

const (
	minPeriod = 4
	maxPeriod = window / 2
	// minCorrelation is the autocorrelation from which a lag is a season.
	minCorrelation = 0.25
)

// workspace is the memory for what is computed rarely: made for each use, so
// that a series at rest holds none of it.
type workspace struct {
	fft      *fourier.FFT
	signal   []float64
	spectrum []complex128
	sorted   []float64
}

// period returns the length of the season in ys, in steps, or 0. It is the
// shortest lag with a peak of the autocorrelation nearly as high as the highest
// one. The autocorrelation is the inverse transform of the power spectrum
// (Wiener-Khinchin), padded with zeros so that it does not wrap around.
func (w *workspace) period(ys []float64) int {
	ys = ys[max(0, len(ys)-window):]
	longest := min(maxPeriod, len(ys)/2)
	if longest < minPeriod {
		return 0
	}
	size := 2
	for size < 2*len(ys) {
		size *= 2
	}
	w.resize(size)
	if !detrend(w.signal[:len(ys)], ys) {
		return 0
	}
	clear(w.signal[len(ys):])
	w.fft.Coefficients(w.spectrum, w.signal)
	for i, c := range w.spectrum {
		re, im := real(c), imag(c)
		w.spectrum[i] = complex(re*re+im*im, 0)
	}
	acf := w.fft.Sequence(w.signal, w.spectrum)
	return shortestPeak(acf, len(ys), longest)
}

func (w *workspace) resize(size int) {
	if w.fft == nil || w.fft.Len() != size {
		w.fft = fourier.NewFFT(size)
	}
	if cap(w.signal) < size {
		w.signal = make([]float64, size)
		w.spectrum = make([]complex128, size/2+1)
	}
	w.signal, w.spectrum = w.signal[:size], w.spectrum[:size/2+1]
}

// detrend writes ys less its least-squares line, scaled to order one, into dst.
// It reports false if nothing but the line is there.
func detrend(dst, ys []float64) bool {
	n := float64(len(ys))
	var top float64
	for _, y := range ys {
		top = max(top, y)
	}
	if top == 0 {
		return false
	}
	var sy, sty float64
	for i, y := range ys {
		t := float64(i) - (n-1)/2
		sy += y / top
		sty += t * y / top
	}
	mean, slope := sy/n, sty/(n*(n*n-1)/12)
	var energy float64
	for i, y := range ys {
		dst[i] = y/top - mean - slope*(float64(i)-(n-1)/2)
		energy += dst[i] * dst[i]
	}
	return energy > 1e-12*n
}

// shortestPeak returns the shortest lag in [minPeriod, longest] whose
// autocorrelation is a local maximum within a tenth of the highest one.
func shortestPeak(acf []float64, n, longest int) int {
	if acf[0] <= 0 {
		return 0
	}
	// Fewer products make up the longer lags: scale by their number.
	at := func(lag int) float64 { return acf[lag] / acf[0] * float64(n) / float64(n-lag) }
	// A bump on the shoulder of a broad peak is none.
	peak := func(lag int) bool {
		here, reach := at(lag), 1+lag/8
		for d := 1; d <= reach; d++ {
			if at(lag-d) > here || at(lag+d) > here {
				return false
			}
		}
		return true
	}
	var best float64
	for lag := minPeriod; lag <= longest; lag++ {
		if peak(lag) {
			best = max(best, at(lag))
		}
	}
	if best < minCorrelation {
		return 0
	}
	for lag := minPeriod; lag <= longest; lag++ {
		if peak(lag) && at(lag) >= 0.9*best {
			return lag
		}
	}
	return 0
}
