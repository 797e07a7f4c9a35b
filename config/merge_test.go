package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

func TestNarrowestWins(t *testing.T) {
	layers := []NamedLayer{
		{Scope: VM, Name: "web1", Values: map[string]string{"headroom": "40%"}},
		{Scope: Host, Name: "node1", Values: map[string]string{"headroom": "30%", "hold": "30s"}},
		{Scope: Account, Name: "acme", Values: map[string]string{"hold": "20s", "shortagePrice": "80"}},
		{Scope: Global, Values: map[string]string{"shortagePrice": "70", "onExit": "keep"}},
	}
	p, origin, err := Merge(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if p.HeadroomPercent != 40 || p.Hold != 30*time.Second || p.ShortagePrice != 80 || p.OnExit != Keep {
		t.Errorf("got %+v", p)
	}
	for key, want := range map[string]string{
		"headroom": "vm web1", "hold": "host node1", "shortagePrice": "account acme",
		"onExit": "global", "shadow.enabled": "default",
	} {
		if origin[key] != want {
			t.Errorf("origin of %s = %q, want %q", key, origin[key], want)
		}
	}
}

func TestDefaults(t *testing.T) {
	p, origin, err := Merge()
	if err != nil {
		t.Fatal(err)
	}
	want := Parameters{
		ShadowEnabled: true, ShadowBase: Size{50, 96 << 20}, ShadowMax: Size{500, 128 << 20},
		ShadowRuntime:     RuntimeVM,
		PredictionHorizon: 5 * time.Second, PreAllocationThreshold: gnomon.Resources{50, 16 << 20, 1e6, 1e6},
		ScalingPolicy: Proportional, MonitoringInterval: time.Second, HistoryRetentionPeriod: 15 * day,
		OnTermination: Terminate, OnExit: Restore, OnOverride: Revert, ForecastModel: "auto", ShortagePrice: 10, Release: ByHold,
		Priority: 50, HeadroomPercent: 20, Hold: 10 * time.Second, OvercommitPercent: gnomon.Resources{100, 100, 100, 100},
	}
	if p != want {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	if len(origin) != len(Schema()) {
		t.Errorf("origin has %d keys, want %d", len(origin), len(Schema()))
	}
}

func TestLeftOutPartsHaveTheirDefault(t *testing.T) {
	p, _, err := Merge(
		NamedLayer{Scope: Global, Values: map[string]string{"preAllocationThreshold": "cpu=1,memory=1GiB", "limits.floor": "cpu=1"}},
		NamedLayer{Scope: VM, Name: "v", Values: map[string]string{"preAllocationThreshold": "cpu=2", "limits.floor": "memory=1GiB"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if want := (gnomon.Resources{2000, 16 << 20, 1e6, 1e6}); p.PreAllocationThreshold != want {
		t.Errorf("threshold %v, want %v", p.PreAllocationThreshold, want)
	}
	if want := (gnomon.Resources{0, 1 << 30, 0, 0}); p.Floor != want {
		t.Errorf("floor %v, want %v", p.Floor, want)
	}
}

func TestValidateTellsAllProblems(t *testing.T) {
	err := Validate(VM, map[string]string{
		"predictionhorizon":      "5s",
		"monitoringInterval":     "fast",
		"preAllocationThreshold": "cpu=-1",
		"limits.floor":           "memory=3 apples",
		"limits.ceiling":         "gpu=1",
		"capacity":               "disk=1MB/s",
		"shortagePrice":          "NaN",
		"headroom":               "0.2",
		"hold":                   "-1s",
		"shadow.enabled":         "maybe",
		"scalingPolicy":          "square",
		"shadow.baseResources":   "disk=1MB/s",
		"shadow.maxResources":    "cpu=1,cpu=2",
		"forecast.model":         strings.Repeat("x", 600),
		"qqqqqqqqqqqqqqqqqqq":    "1",
		"headroom2":              "1%",
	})
	for _, want := range []string{
		`predictionhorizon = "5s": unknown parameter, did you mean "predictionHorizon"?`,
		`monitoringInterval = "fast": want a duration with a unit`,
		`preAllocationThreshold = "cpu=-1": cpu amount "-1"`,
		`unknown unit "apples"`,
		`unknown resource "gpu": want one of cpu, memory, disk, network`,
		`capacity = "disk=1MB/s": cannot be set for one vm, only globally or per host`,
		`shortagePrice = "NaN": want a number from 0.01 to 1e+07`,
		`headroom = "0.2": want whole percents from 0% to 1000%`,
		`hold = "-1s": want a duration`,
		`shadow.enabled = "maybe": want true or false`,
		`scalingPolicy = "square": want fixed, proportional or step`,
		`a shadow has no disk`,
		`cpu is given twice`,
		`too long: 600 bytes, want at most 512`,
		`qqqqqqqqqqqqqqqqqqq = "1": unknown parameter; "gnomon config schema" lists all`,
		`headroom2 = "1%": unknown parameter, did you mean "headroom"?`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 16 {
		t.Errorf("%d problems, want 16:\n%v", n, err)
	}
}

func TestMisfits(t *testing.T) {
	for name, tc := range map[string]struct {
		values map[string]string
		want   string
	}{
		"horizon below interval": {map[string]string{"predictionHorizon": "500ms"}, "predictionHorizon (500ms) must be at least monitoringInterval (1s)"},
		"interval above horizon": {map[string]string{"monitoringInterval": "10s"}, "predictionHorizon (5s) must be at least monitoringInterval (10s)"},
		"horizon too long":       {map[string]string{"predictionHorizon": "1000001ms"}, "at most 1000 times"},
		"horizon longest":        {map[string]string{"predictionHorizon": "1000s"}, ""},
		"floor above ceiling":    {map[string]string{"limits.floor": "cpu=2", "limits.ceiling": "cpu=1"}, "the cpu of limits.floor (2) must be at most that of limits.ceiling (1)"},
		"floor, no ceiling":      {map[string]string{"limits.floor": "cpu=2", "limits.ceiling": "memory=1GiB"}, ""},
		"base above max":         {map[string]string{"shadow.baseResources": "memory=1GiB"}, "the memory of shadow.baseResources (1GiB) must be at most that of shadow.maxResources (128MiB)"},
		"season too short":       {map[string]string{"forecast.season": "1s"}, "must be 0 or at least twice"},
		"retention too short":    {map[string]string{"historyRetentionPeriod": "1h", "monitoringInterval": "1h", "predictionHorizon": "1h"}, "at least twice monitoringInterval"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, err := Merge(NamedLayer{Scope: Global, Values: tc.values})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if tc.want != "" && p != Defaults() {
				t.Errorf("what does not fit was applied: %+v", p)
			}
		})
	}
}

// One bad layer costs its own values only.
func TestFallBack(t *testing.T) {
	p, origin, err := Merge(
		NamedLayer{Scope: Global, Values: map[string]string{"monitoringInterval": "2s", "predictionHorizon": "6s"}},
		NamedLayer{Scope: VM, Name: "v", Values: map[string]string{"monitoringInterval": "7s", "hold": "1m", "headroom": "lots"}},
	)
	var problem *Problem
	if !errors.As(err, &problem) || problem.Origin != "vm v" {
		t.Fatalf("got %v, want problems of vm v", err)
	}
	if p.MonitoringInterval != 2*time.Second || p.PredictionHorizon != 6*time.Second || p.Hold != time.Minute || p.HeadroomPercent != 20 {
		t.Errorf("got %+v", p)
	}
	if origin["monitoringInterval"] != "global" || origin["hold"] != "vm v" || origin["headroom"] != "default" {
		t.Errorf("got %v", origin)
	}
}

func drawLayer(t *rapid.T, label string, anything bool) NamedLayer {
	l := NamedLayer{Scope: rapid.SampledFrom(Scopes()).Draw(t, label+" scope"), Values: map[string]string{}}
	if l.Scope != Global {
		l.Name = "n"
	}
	values := map[string][]string{"boolean": {"true", "false"}, "choice": {"fixed", "step", "suspend", "keep", "ses", "x"},
		"percent": {"0%", "20%", "1000%"}, "number": {"0.5", "0.95", "7"}, "percents": {"cpu=1%", "cpu=1000%,memory=50%"},
		"bytes":    {"0", "512", "16KiB", "1MiB"},
		"duration": {"0", "100ms", "1s", "3s", "1h", "2d"}, "size": {"cpu=10m", "memory=80MiB", "cpu=2,memory=1GiB"},
		"amounts": {"", "cpu=0", "cpu=100m,memory=1GiB", "cpu=3,disk=1MB/s"}}
	for i, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(Schema()), 0, 8, func(k Key) string { return k.Name }).Draw(t, label+" keys") {
		if anything && i%3 == 2 {
			l.Values[k.Name] = rapid.String().Draw(t, label+" text")
			continue
		}
		l.Values[k.Name] = rapid.SampledFrom(values[k.Type]).Draw(t, label+" value")
	}
	return l
}

// Whatever the layers say, what Merge gives fits together and can be written
// and read back; and without an error every value given holds or is overridden.
func TestMergeAlwaysUsable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var layers []NamedLayer
		for i := range rapid.IntRange(0, 5).Draw(t, "layers") {
			layers = append(layers, drawLayer(t, string(rune('a'+i)), true))
		}
		p, origin, err := Merge(layers...)
		if m := p.misfit(); m != nil {
			t.Fatalf("does not fit: %s", m.detail)
		}
		back, _, backErr := Merge(NamedLayer{Scope: Global, Values: p.Values()})
		if backErr != nil || back != p {
			t.Fatalf("read back: %v\n got %+v\nwant %+v", backErr, back, p)
		}
		if err != nil {
			return
		}
		for _, l := range layers {
			for key := range l.Values {
				if origin[key] == "default" {
					t.Fatalf("%s set at %s has origin default", key, l.Scope)
				}
			}
		}
	})
}

// The order in which layers of different scopes are given does not matter.
func TestMergeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var layers []NamedLayer
		for _, s := range Scopes() {
			l := drawLayer(t, string(s), false)
			l.Scope = s
			layers = append(layers, l)
		}
		a, originA, errA := Merge(layers...)
		shuffled := rapid.Permutation(layers).Draw(t, "order")
		b, originB, errB := Merge(shuffled...)
		if a != b || !maps.Equal(originA, originB) || (errA == nil) != (errB == nil) {
			t.Fatalf("%+v\n%+v\n%v\n%v", a, b, errA, errB)
		}
	})
}

func TestSchemaIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Schema() {
		if seen[k.Name] {
			t.Errorf("%s: twice", k.Name)
		}
		seen[k.Name] = true
		if k.Doc == "" || k.Range == "" || k.Type == "" || len(k.Scopes) == 0 {
			t.Errorf("%s: incomplete", k.Name)
		}
		for _, s := range k.Scopes {
			if err := Validate(s, map[string]string{k.Name: k.Example}); err != nil {
				t.Errorf("example: %v", err)
			}
			if err := Validate(s, map[string]string{k.Name: k.Default}); err != nil {
				t.Errorf("default: %v", err)
			}
		}
		if k.Example == k.Default {
			t.Errorf("%s: the example is the default", k.Name)
		}
		p, _, err := Merge(NamedLayer{Scope: Global, Values: map[string]string{k.Name: k.Example}})
		if err != nil || p == Defaults() {
			t.Errorf("%s: the example changes nothing (%v)", k.Name, err)
		}
	}
	if keys := slices.Sorted(maps.Keys(Defaults().Values())); len(keys) != len(seen) {
		t.Errorf("Values has %d keys, want %d", len(keys), len(seen))
	}
}
