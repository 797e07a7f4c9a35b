package config

import (
	"flag"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/core/forecast"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the generated documentation")

func TestMarkdown(t *testing.T) {
	const path = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != Markdown() {
		t.Errorf("%s is not what the schema says: run go generate ./config", path)
	}
}

// forecast.model takes the names of the models there are.
func TestModels(t *testing.T) {
	if want := forecast.Models(); !slices.Equal(Models(), want) {
		t.Errorf("got %v, want %v", Models(), want)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "500ms": 500 * time.Millisecond, "15d": 15 * day, "2w": 14 * day, "1w1d": 8 * day,
		"1d12h": 36 * time.Hour, "1w2d3h4m": 9*day + 3*time.Hour + 4*time.Minute, "1.5h": 90 * time.Minute, "0d": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "d", "1.5d", "-1d", "-5s", "+5s", "1d-5h", "1d2w", "5 s", "1y", "15d5", "9999999999w", "106751d9999999h", "1dd", "∞"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q = %v, want an error", text, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0": 0, "15d": 15 * day, "1d12h": 36 * time.Hour, "1m": time.Minute, "10s": 10 * time.Second,
		"1h": time.Hour, "1h0m5s": time.Hour + 5*time.Second, "1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
		"10m": 10 * time.Minute,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d"))
		if back, err := ParseDuration(FormatDuration(d)); err != nil || back != d {
			t.Fatalf("%v as %q reads as %v, %v", d, FormatDuration(d), back, err)
		}
	})
}

func TestSuggest(t *testing.T) {
	for name, want := range map[string]string{
		"predictionHorizion": "predictionHorizon", "monitoring_interval": "monitoringInterval",
		"ShadowVM_BaseResources": "shadow.baseResources", "baseResources": "shadow.baseResources",
		"floor": "limits.floor", "OVERCOMMIT": "overcommit", "zzz": "",
	} {
		if got := suggest(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// Whatever the text, reading it either fails and changes nothing, or gives
// something that is written and read back to the same.
func FuzzValue(f *testing.F) {
	for i, k := range Schema() {
		f.Add(uint8(i), k.Default)
		f.Add(uint8(i), k.Example)
	}
	f.Add(uint8(3), "9223372036s")
	f.Add(uint8(4), "cpu=,cpu=1")
	f.Fuzz(func(t *testing.T, i uint8, text string) {
		k := schema[int(i)%len(schema)]
		p := Defaults()
		if problem := apply(&p, k.Scopes[0], k.Name, text); problem != nil {
			if p != Defaults() {
				t.Fatalf("%v, yet %+v", problem, p)
			}
			return
		}
		written := k.codec.write(&p)
		back := Defaults()
		if problem := apply(&back, k.Scopes[0], k.Name, written); problem != nil || back != p {
			t.Fatalf("%s = %q written as %q: %v", k.Name, text, written, problem)
		}
	})
}
