package forecast

import (
	"encoding/binary"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// hostile are samples that arithmetic stumbles over.
var hostile = []float64{
	0, -1, math.NaN(), math.Inf(1), math.Inf(-1), 1e18, math.MaxFloat64, math.SmallestNonzeroFloat64, 1e-300, 1e9, 1,
}

// Whatever comes in, what goes out is well formed.
func TestForecastsAreWellFormed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Model:   rapid.SampledFrom(Models()).Draw(t, "model"),
			Horizon: rapid.SampledFrom([]int{1, 2, 5, 10, 40, 300}).Draw(t, "horizon"),
			Season:  rapid.SampledFrom([]int{0, 0, 2, 7, 60, MaxSeason}).Draw(t, "season"),
		}
		f, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(t, "pieces") {
			level := rapid.OneOf(rapid.SampledFrom(hostile), rapid.Float64Range(0, 1000)).Draw(t, "level")
			slope := rapid.SampledFrom([]float64{0, 0, 1, -1, 1e17}).Draw(t, "slope")
			every := rapid.IntRange(1, 20).Draw(t, "spike every")
			spike := rapid.SampledFrom(hostile).Draw(t, "spike")
			piece := make([]float64, rapid.IntRange(1, 150).Draw(t, "length"))
			for i := range piece {
				piece[i] = level + slope*float64(i)
				if i%every == every-1 {
					piece[i] = spike
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "train") == 0 {
				f.Train(piece)
			}
			for _, y := range piece {
				f.Update(y)
			}
			check(t, o, f.Forecast())
		}
	})
}

// A gap is survived and its end found in the right phase of the season.
func TestGap(t *testing.T) {
	f := newForecaster(t, Options{Horizon: 12, Model: "seasonal-naive"})
	ys := signal("square", 1, 420)
	for i, y := range ys {
		if i >= 300 && i < 340 {
			y = math.NaN()
		}
		f.Update(y)
	}
	for k, m := range f.Forecast().Mean {
		if high := (420+k)%12 >= 8; high != (m > 300) {
			t.Errorf("step %d: mean %v", k+1, m)
		}
	}
}

// One absurd sample does not spoil the forecasts for long.
func TestSpikeIsForgotten(t *testing.T) {
	for _, model := range Models() {
		f := newForecaster(t, Options{Horizon: 5, Model: model})
		for i := range 900 {
			y := 100 + float64(i*7%5)
			if i == 300 {
				y = 1e18
			}
			f.Update(y)
		}
		if got := f.Forecast().Quantiles[4][1]; got < 50 || got > 200 {
			t.Errorf("%s: median %v, 600 samples after a spike of 1e18 in values of about 100", model, got)
		}
	}
}

func FuzzForecaster(f *testing.F) {
	bits := func(ys ...float64) (b []byte) {
		for _, y := range ys {
			b = binary.LittleEndian.AppendUint64(append(b, 255), math.Float64bits(y))
		}
		return b
	}
	f.Add(uint8(0), uint16(10), uint16(0), bits(hostile...))
	f.Add(uint8(6), uint16(3600), uint16(512), append([]byte{1, 2, 3, 200, 1, 2, 3, 200}, bits(1e18, 0, 1e18)...))
	f.Add(uint8(8), uint16(5), uint16(2), []byte("aaaaaaaazzzzaaaaaaaazzzzaaaaaaaazzzzaaaaaaaazzzzaaaaaaaazzzz"))
	f.Fuzz(func(t *testing.T, model uint8, horizon, season uint16, data []byte) {
		o := Options{Model: Models()[int(model)%len(Models())], Horizon: int(horizon), Season: int(season)}
		fc, err := New(o)
		if err != nil {
			return
		}
		most := 4096 / (1 + o.Horizon/64) // long horizons are slow
		for n := 0; len(data) > 0 && n < most; n++ {
			y := float64(data[0])
			if data[0] == 255 && len(data) >= 9 {
				y = math.Float64frombits(binary.LittleEndian.Uint64(data[1:]))
				data = data[8:]
			}
			data = data[1:]
			fc.Update(y)
			if n%16 == 0 {
				check(t, o, fc.Forecast())
			}
		}
		check(t, o, fc.Forecast())
	})
}
