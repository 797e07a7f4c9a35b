package workload

import (
	"iter"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
)

const window = 180 * time.Second

func until(seq iter.Seq[Burst], end time.Duration) []Burst {
	var out []Burst
	for b := range seq {
		if b.Start >= end {
			break
		}
		out = append(out, b)
	}
	return out
}

func itemsUntil(seed uint64, end time.Duration) []time.Duration {
	var out []time.Duration
	for at := range Items(seed) {
		if at >= end {
			break
		}
		out = append(out, at)
	}
	return out
}

func TestAWindowHoldsTenBurstsOfEachKind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		for r := range gnomon.AllResources() {
			whole := 0
			for _, b := range until(Bursts(seed, r), window) {
				if b.End() <= window {
					whole++
				}
			}
			if whole < 10 {
				t.Fatalf("%v: %d whole bursts in %v, want at least 10", r, whole, window)
			}
		}
	})
}

func TestBurstsAreInOrderAndApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		for r := range gnomon.AllResources() {
			bursts := until(Bursts(seed, r), 20*time.Minute)
			for i, b := range bursts[1:] {
				if before := bursts[i]; b.Start <= before.End() {
					t.Fatalf("%v: burst at %v starts before the one at %v ended (%v)", r, b.Start, before.Start, before.End())
				}
			}
		}
	})
}

func TestSomeBurstsAreSurprises(t *testing.T) {
	surprises := 0
	for _, b := range until(Bursts(1, gnomon.CPU), 20*time.Minute) {
		if !b.Foreseeable {
			surprises++
		}
	}
	if surprises < 10 || surprises > 45 {
		t.Errorf("%d surprises in 100 periods, want about 25", surprises)
	}
}

func TestTheSameSeedDoesTheSame(t *testing.T) {
	for r := range gnomon.AllResources() {
		if a, b := until(Bursts(7, r), window), until(Bursts(7, r), window); !slices.Equal(a, b) {
			t.Errorf("%v: two runs of one seed differ", r)
		}
	}
	if !slices.Equal(itemsUntil(7, window), itemsUntil(7, window)) {
		t.Error("items: two runs of one seed differ")
	}
	if slices.Equal(itemsUntil(7, window), itemsUntil(8, window)) {
		t.Error("items: two seeds do the same")
	}
}

func TestItemsNeedAThirdOfACoreInBurstsAndLittleBetween(t *testing.T) {
	items := itemsUntil(3, window)
	if !slices.IsSorted(items) {
		t.Fatal("items are not in order")
	}
	first := until(Bursts(3, gnomon.CPU), window)[0]
	in := 0
	for _, at := range items {
		if at >= first.Start && at < first.End() {
			in++
		}
	}
	if cores := float64(in) * ItemWork.Seconds() / first.Length.Seconds(); cores < 0.3 || cores > 0.36 {
		t.Errorf("a burst needs %.2f cores, want a third", cores)
	}
	quiet := 0
	for _, at := range items {
		if at < first.Start {
			quiet++
		}
	}
	if want := int(first.Start / time.Second); quiet < want-1 || quiet > want+1 {
		t.Errorf("%d items before the first burst at %v, want one a second", quiet, first.Start)
	}
}

func TestReportsSurviveTheLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Report{
			Kind:       rapid.SampledFrom([]ReportKind{Ready, Calibrated, Item, GivenUp, Onset, Over, Trouble}).Draw(t, "kind"),
			At:         time.Duration(rapid.Int64Min(0).Draw(t, "at")),
			Took:       time.Duration(rapid.Int64Min(0).Draw(t, "took")),
			Resource:   gnomon.Resource(rapid.IntRange(0, gnomon.NumResources-1).Draw(t, "resource")),
			Bytes:      rapid.Int64Min(0).Draw(t, "bytes"),
			Iterations: rapid.Int64Min(0).Draw(t, "iterations"),
			Text:       rapid.StringN(0, 100, 400).Draw(t, "text"),
		}
		line := want.Encode()
		got, err := Decode(line[:len(line)-1])
		if err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	for _, line := range []string{
		``, `{}`, `{"kind":"sleep"}`, `{"kind":"item","took_ns":-1}`,
		`{"kind":"item","at_ns":-1}`, `{"kind":"over","resource":"gpu"}`,
		string(make([]byte, MaxLine+1)),
	} {
		if r, err := Decode([]byte(line)); err == nil {
			t.Errorf("%.40q: decoded as %+v, want an error", line, r)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Report{Kind: Item, At: time.Second, Took: time.Millisecond}.Encode())
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Decode(line)
		if err != nil {
			return
		}
		if _, err := Decode(r.Encode()[:len(r.Encode())-1]); err != nil {
			t.Fatalf("what was decoded from %q does not decode again: %v", line, err)
		}
	})
}
