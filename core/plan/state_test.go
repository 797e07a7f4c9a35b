package plan

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// seasoned is a planner that has seen some minutes of bursts, and how many
// seconds.
func seasoned(t *testing.T, s Settings) (*Planner, int) {
	p := planner(t, s)
	const seconds = 300
	for i := range seconds {
		p.Observe(cpu(float64(i), burst(i), burst(i)))
	}
	return p, seconds
}

func load(t *testing.T, s Settings, state []byte) *Planner {
	t.Helper()
	p, err := Load(s, state)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A planner that was saved and loaded asks as it would have without.
func TestLoadedPlannerGoesOn(t *testing.T) {
	p, n := seasoned(t, settings())
	q := load(t, settings(), p.Save())
	if q.Samples() != n || !q.Last().Equal(p.Last()) || !q.Last().Equal(start.Add(time.Duration(n-1)*time.Second)) {
		t.Errorf("loaded %d samples up to %v, want %d up to %v", q.Samples(), q.Last(), n, p.Last())
	}
	if !bytes.Equal(q.Save(), p.Save()) {
		t.Error("another state is saved than was loaded")
	}
	asked := 0
	for i := n; i < n+48; i++ {
		o := cpu(float64(i), burst(i), burst(i))
		a, b := p.Observe(o).Wants[0], q.Observe(o).Wants[0]
		if a.Model != b.Model || a.NeedIn != b.NeedIn || math.Abs(float64(a.High-b.High)) > 0.01*float64(a.High) {
			t.Errorf("second %d: the loaded one says %+v, the other %+v", i, b, a)
		}
		if i%12 == 7 && b.Level >= 500 {
			asked++
		}
	}
	if asked != 4 {
		t.Errorf("asked before %d of 4 bursts", asked)
	}
}

func TestTimeSinceTheStateIsMissing(t *testing.T) {
	p, n := seasoned(t, settings())
	for _, gap := range []int{1, 30, 5000} {
		q := load(t, settings(), p.Save())
		q.Observe(cpu(float64(n+gap-1), 60, 60))
		h := q.lanes[gnomon.CPU].history
		missing := 0
		for _, y := range h[n:] {
			if math.IsNaN(y) {
				missing++
			}
		}
		if want := min(gap-1, maxGap); missing != want || h[len(h)-1] != 60 {
			t.Errorf("%d seconds after the last sample: %d missing and %v at the end, want %d and 60", gap, missing, h[len(h)-1], want)
		}
	}
}

// With other settings the demands kept are trained from.
func TestLoadWithOtherSettings(t *testing.T) {
	p, n := seasoned(t, settings())
	model, interval := settings(), settings()
	model.Model = "seasonal-naive"
	interval.Interval = 2 * time.Second
	if got := load(t, model, p.Save()); got.Samples() != n || got.lanes[gnomon.CPU].forecaster.Forecast().Model != model.Model {
		t.Errorf("%d samples, forecast by %s; want %d by %s", got.Samples(), got.lanes[gnomon.CPU].forecaster.Forecast().Model, n, model.Model)
	}
	if got := load(t, interval, p.Save()); got.Samples() != n/2 {
		t.Errorf("%d samples at twice the interval, want %d", got.Samples(), n/2)
	}
	if got := load(t, settings(), planner(t, settings()).Save()); got.Samples() != 0 || !got.Last().IsZero() {
		t.Errorf("of a planner that knew nothing: %d samples up to %v", got.Samples(), got.Last())
	}
}

func TestLoadRefuses(t *testing.T) {
	p, _ := seasoned(t, settings())
	state := p.Save()
	newer, damaged, wrong := bytes.Clone(state), bytes.Clone(state), settings()
	newer[4] = 99
	damaged[len(damaged)/2] ^= 4
	wrong.Horizon = 0
	for name, tc := range map[string]struct {
		s     Settings
		state []byte
		want  string
	}{
		"nothing":         {settings(), nil, "0 bytes"},
		"another version": {settings(), newer, "version 99: want 4"},
		"damage":          {settings(), damaged, "checksum"},
		"wrong settings":  {wrong, state, "horizon 0s"},
	} {
		if q, err := Load(tc.s, tc.state); err == nil || q != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestStateIsSmall(t *testing.T) {
	s := settings()
	s.Horizon = 10 * s.Interval
	p := planner(t, s)
	for i := range 1300 {
		o := cpu(float64(i), 0, 0)
		o.Known = gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network)
		for r := range gnomon.AllResources() {
			o.Demand[r] = int64(1e10 * math.Abs(math.Sin(float64(i*(i+int(r))))))
		}
		p.Observe(o)
	}
	n := len(p.Save())
	t.Logf("%d bytes", n)
	if n >= 256<<10 {
		t.Errorf("%d bytes, want less than 256 KiB", n)
	}
}

// A state that was forged with a right checksum is refused or works.
func FuzzLoad(f *testing.F) {
	p, err := New(settings())
	if err != nil {
		f.Fatal(err)
	}
	const header = 9
	f.Add(p.Save()[header:])
	for i := range 20 {
		p.Observe(cpu(float64(i), burst(i), burst(i)))
	}
	f.Add(p.Save()[header:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(stateMagic), stateVersion)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
		p, err := Load(settings(), append(b, body...))
		if err != nil {
			return
		}
		for i := range 20 {
			for _, w := range p.Observe(cpu(float64(i), burst(i), burst(i))).Wants {
				if w.Low < 0 || w.Median < w.Low || w.High < w.Median || w.Level < 0 {
					t.Fatalf("wants %+v", w)
				}
			}
		}
		if _, err := Load(settings(), p.Save()); err != nil {
			t.Fatal(err)
		}
	})
}
