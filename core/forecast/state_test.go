package forecast

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func resumed(t interface{ Fatal(...any) }, o Options, f *Forecaster) *Forecaster {
	g, err := Load(o, f.Save())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// score is how a forecaster does on a stretch of samples: its mean pinball loss,
// and the share of outcomes in its outermost interval.
type score struct{ loss, covered float64 }

// scored updates f with the samples after start and judges its forecasts of
// them.
func scored(f *Forecaster, ys []float64, start int) (s score) {
	var n, intervals float64
	for i := start; i < len(ys); i++ {
		fc := f.Forecast()
		for k := 0; k < len(fc.Quantiles) && i+k < len(ys); k++ {
			y, qs := ys[i+k], fc.Quantiles[k]
			for j, level := range fc.Levels {
				s.loss += max(level*(y-qs[j]), (level-1)*(y-qs[j]))
				n++
			}
			if y >= qs[0] && y <= qs[len(qs)-1] {
				s.covered++
			}
			intervals++
		}
		f.Update(ys[i])
	}
	return score{s.loss / n, s.covered / intervals}
}

// Over the next 200 samples a resumed forecaster is as good as one that never
// stopped, and better than one that begins anew.
func TestResumedIsAsGoodAsNeverStopped(t *testing.T) {
	o := Options{Horizon: 10, Quantiles: []float64{0.05, 0.5, 0.95}}
	var anewLoss, resumedLoss float64
	series := []string{"white", "skewed", "ar", "season", "square", "walk"}
	for i, name := range series {
		for _, n := range []int{70, 700} {
			ys := signal(name, uint64(7+i), n+200)
			f, anew := newForecaster(t, o), newForecaster(t, o)
			for _, y := range ys[:n] {
				f.Update(y)
			}
			g := resumed(t, o, f)
			want, got, none := scored(f, ys, n), scored(g, ys, n), scored(anew, ys, n)
			if math.Abs(got.loss-want.loss) > 0.02*want.loss || math.Abs(got.covered-want.covered) > 0.01 {
				t.Errorf("%s, stopped after %d: %+v, never stopped %+v", name, n, got, want)
			}
			anewLoss += none.loss / want.loss
			resumedLoss += got.loss / want.loss
		}
	}
	cases := float64(2 * len(series))
	t.Logf("loss in units of one never stopped: resumed %.3f, begun anew %.2f", resumedLoss/cases, anewLoss/cases)
	if anewLoss < 1.15*resumedLoss {
		t.Errorf("one begun anew loses %.2f times what a resumed one does", anewLoss/resumedLoss)
	}
}

// What is saved is what was loaded, whatever came before, and a resumed
// forecaster's forecasts are well formed.
func TestStateComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Model:   rapid.SampledFrom(Models()).Draw(t, "model"),
			Horizon: rapid.SampledFrom([]int{1, 2, 10, 60, 300}).Draw(t, "horizon"),
			Season:  rapid.SampledFrom([]int{0, 0, 7, 60}).Draw(t, "season"),
		}
		f, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		value := rapid.OneOf(rapid.SampledFrom(hostile), rapid.Float64Range(0, 1000))
		for range rapid.IntRange(0, 4).Draw(t, "pieces") {
			level, next := value.Draw(t, "level"), value.Draw(t, "next")
			ys := make([]float64, rapid.IntRange(1, 700).Draw(t, "length"))
			for i := range ys {
				ys[i] = level
				if i%7 == 3 {
					ys[i] = next
				}
			}
			if rapid.Bool().Draw(t, "train") {
				f.Train(ys)
				continue
			}
			for _, y := range ys {
				f.Update(y)
			}
		}
		state := f.Save()
		g := resumed(t, o, f)
		if !bytes.Equal(g.Save(), state) {
			t.Fatal("another state is saved than was loaded")
		}
		for _, y := range []float64{1, math.NaN(), 1e9, 0} {
			check(t, o, g.Forecast())
			g.Update(y)
		}
		check(t, o, g.Forecast())
	})
}

// A state stays below 64 KiB on values that need all their bits.
func TestStateIsSmall(t *testing.T) {
	f := newForecaster(t, Options{Horizon: 10})
	rng := rand.New(rand.NewPCG(1, 1))
	for range window + slack {
		f.Update(1e6 * rng.Float64())
	}
	n := len(f.Save())
	t.Logf("%d bytes", n)
	if n > 64<<10 {
		t.Errorf("%d bytes, want at most 64 KiB", n)
	}
}

func TestLoadRefuses(t *testing.T) {
	o := Options{Model: "holt", Horizon: 5, Season: 12, Quantiles: []float64{0.1, 0.9}}
	f := newForecaster(t, o)
	f.Train(signal("square", 1, 100))
	good := f.Save()
	with := func(change func(*Options)) Options {
		o := o
		change(&o)
		return o
	}
	newer := bytes.Clone(good)
	newer[4]++
	for name, tc := range map[string]struct {
		o     Options
		state []byte
		want  string
	}{
		"nothing":           {o, nil, "0 bytes"},
		"damage":            {o, append(bytes.Clone(good), 0), "checksum"},
		"another version":   {o, newer, "version 4: want 3"},
		"another model":     {with(func(o *Options) { o.Model = Auto }), good, `model "holt": want "auto"`},
		"another horizon":   {with(func(o *Options) { o.Horizon = 6 }), good, "horizon of 5 steps: want 6"},
		"another season":    {with(func(o *Options) { o.Season = 0 }), good, "season of 12 steps: want 0"},
		"other quantiles":   {with(func(o *Options) { o.Quantiles = nil }), good, "quantiles [0.1 0.9]"},
		"impossible option": {with(func(o *Options) { o.Horizon = 0 }), good, "horizon 0 out of range"},
	} {
		if g, err := Load(tc.o, tc.state); err == nil || g != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// A program with other models goes on with those that it knows.
func TestOtherModels(t *testing.T) {
	o := Options{Horizon: 10}
	f := newForecaster(t, o)
	for _, y := range signal("square", 3, 400) {
		f.Update(y)
	}
	renamed := func(f *Forecaster, from, to string) *tracker {
		i := slices.IndexFunc(f.trackers, func(t *tracker) bool { return t.name == from })
		f.trackers[i].name = to
		return f.trackers[i]
	}
	renamed(f, "holt-winters", "one-that-is-no-more")
	g := resumed(t, o, f)
	if p := renamed(g, "holt-winters", "one-that-is-new").at[0]; p.loss != g.mixer.at[0].loss || p.errors.n != 0 {
		t.Errorf("a model the state does not know has a loss of %v, want the mixer's, %v; and %d errors", p.loss, g.mixer.at[0].loss, p.errors.n)
	}
	if p := renamed(g, "ses", "ses").at[0]; p.loss == g.mixer.at[0].loss || p.errors.n == 0 {
		t.Error("a model that the state knows begins unscored")
	}
	renamed(g, "one-that-is-new", "holt-winters")
	check(t, o, g.Forecast())
}

// A field that decides forecasts has to be saved, or to follow from what is.
// What was trained counts in whole refit periods, so that fewer samples may be
// counted than are held.
func TestStateOfFewCounted(t *testing.T) {
	for _, bulk := range []int{1, refitPeriod - 1, refitPeriod + 1, 3*refitPeriod - 1} {
		f := newForecaster(t, Options{Horizon: 1})
		ys := signal("walk", 1, bulk+replayed)
		for i := range 6 {
			ys[bulk+i] = math.NaN()
		}
		f.Train(ys)
		g, err := Load(f.options, f.Save())
		if err != nil {
			t.Errorf("%d samples trained at once: %v", bulk, err)
			continue
		}
		if got, want := g.Forecast(), f.Forecast(); !reflect.DeepEqual(got, want) {
			t.Errorf("%d samples trained at once: loaded it forecasts %v, before %v", bulk, got, want)
		}
	}
}

func TestStateHoldsEveryField(t *testing.T) {
	for _, tc := range []struct {
		of     any
		fields []string
	}{
		{Forecaster{}, []string{"options", "series", "levels", "ladder", "trackers", "mixer", "due", "between", "scratch"}},
		{series{}, []string{"buf", "count", "epoch", "lo", "hi", "std", "split", "gap", "duo", "season", "further", "period", "phase"}},
		{rung{}, []string{"step", "stride", "slots", "decay"}},
		{tracker{}, []string{"model", "own", "name", "prior", "levels", "ladder", "at", "awake", "path", "known", "around", "settled"}},
		{probe{}, []string{"points", "spreads", "errors", "loss"}},
		{mixer{}, []string{"at"}},
		{junction{}, []string{"pending", "moved", "levels", "above", "below", "beyond", "weights", "credit", "scores", "loss", "apart"}},
		{tail{}, []string{"excesses", "mean", "index", "within", "fittedWithin"}},
		{calibration{}, []string{"level", "rate", "bound", "moved"}},
		{residuals{}, []string{"value", "order", "n", "next"}},
	} {
		var got []string
		for f := range reflect.TypeOf(tc.of).Fields() {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, tc.fields) {
			t.Errorf("%T has fields %v, known are %v: see to it that state.go saves what is new, unless it follows from the rest, and name it here",
				tc.of, got, tc.fields)
		}
	}
}

// forge puts a right header before a body.
func forge(body []byte) []byte {
	b := append([]byte(stateMagic), stateVersion)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, body...)
}

// Losses without scores, on a series of zeros, are a division of zeros.
func TestLossesWithoutScores(t *testing.T) {
	o := Options{Horizon: 10}
	f := newForecaster(t, o)
	f.Train(make([]float64, 50))
	for i := range f.mixer.at {
		f.mixer.at[i].scores = 0
		for k, tr := range f.trackers {
			tr.at[i].loss = float64(k) * 1e28
		}
	}
	g := resumed(t, o, f)
	check(t, o, g.Forecast())
	g.Update(1)
	check(t, o, g.Forecast())
}

// A state that was forged with a right checksum is refused, or gives forecasts
// as any.
func FuzzLoad(f *testing.F) {
	o := Options{Horizon: 6, Quantiles: []float64{0.1, 0.5, 0.9}}
	fc := newForecaster(f, o)
	const header = 9
	f.Add(fc.Save()[header:])
	fc.Train(signal("square", 1, 40))
	f.Add(fc.Save()[header:])
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := Load(o, forge(body))
		if err != nil {
			return
		}
		for i := range 40 {
			check(t, o, g.Forecast())
			g.Update(float64(i * i % 7))
		}
		check(t, o, g.Forecast())
		if _, err := Load(o, g.Save()); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkState(b *testing.B) {
	ys, _ := bursts(4, 2000, 12, 1, 4, 60, 600)
	f := newForecaster(b, Options{Horizon: 10})
	for _, y := range ys {
		f.Update(y)
	}
	state := f.Save()
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			state = f.Save()
		}
		b.ReportMetric(float64(len(state)), "bytes")
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := Load(Options{Horizon: 10}, state); err != nil {
				b.Fatal(err)
			}
		}
	})
}
