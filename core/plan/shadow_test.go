package plan

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon/config"
)

func TestShadowSize(t *testing.T) {
	base, large := config.Size{CPU: 100, Memory: 96 << 20}, config.Size{CPU: 500, Memory: 160 << 20}
	tests := []struct {
		policy  config.ScalingPolicy
		share   float64
		current config.Size
		want    config.Size
	}{
		{config.Fixed, 1, large, base},
		{config.Proportional, 0, base, base},
		{config.Proportional, 0.5, base, config.Size{CPU: 300, Memory: 128 << 20}},
		{config.Proportional, 0.51, base, config.Size{CPU: 325, Memory: 132 << 20}},
		{config.Proportional, 1, base, large},
		{config.Proportional, math.NaN(), large, base},
		{config.Proportional, 7, base, large},
		{config.Step, 0.49, base, base},
		{config.Step, 0.5, base, large},
		{config.Step, 0.45, large, large},
		{config.Step, 0.4, large, large},
		{config.Step, 0.39, large, base},
		{"unheard of", 1, large, base},
	}
	for _, tt := range tests {
		if got := ShadowSize(tt.policy, base, large, tt.share, tt.current); got != tt.want {
			t.Errorf("%s, share %v, now %v: got %v, want %v", tt.policy, tt.share, tt.current, got, tt.want)
		}
	}
}

func TestShadowSizeProperties(t *testing.T) {
	size := rapid.Custom(func(t *rapid.T) config.Size {
		return config.Size{CPU: rapid.Int64Range(0, 64000).Draw(t, "cpu"), Memory: rapid.Int64Range(0, 1<<40).Draw(t, "memory")}
	})
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]config.ScalingPolicy{config.Fixed, config.Proportional, config.Step}).Draw(t, "policy")
		base, most, current := size.Draw(t, "base"), size.Draw(t, "max"), size.Draw(t, "current")
		a := rapid.Float64Range(-1, 2).Draw(t, "share")
		b := rapid.Float64Range(a, 2).Draw(t, "larger share")
		x, y := ShadowSize(policy, base, most, a, current), ShadowSize(policy, base, most, b, current)
		if x.CPU > y.CPU || x.Memory > y.Memory {
			t.Fatalf("share %v gives %v, share %v gives %v", a, x, b, y)
		}
		for _, s := range []config.Size{x, y} {
			if s.CPU < base.CPU || s.CPU > max(base.CPU, most.CPU) || s.Memory < base.Memory || s.Memory > max(base.Memory, most.Memory) {
				t.Fatalf("%v is not within %v and %v", s, base, most)
			}
		}
		if again := ShadowSize(policy, base, most, a, x); again != x {
			t.Fatalf("the same share resizes %v to %v", x, again)
		}
	})
}
