package rig

import (
	"slices"
	"testing"
)

func TestCounts(t *testing.T) {
	for text, want := range map[string]Counts{"1,10,50": {1, 10, 50}, "7": {7}, "": nil} {
		c := Counts{3}
		if err := c.Set(text); err != nil || !slices.Equal(c, want) || c.String() != text {
			t.Errorf("Set(%q): %v (%q), %v; want %v", text, c, c.String(), err, want)
		}
	}
	for _, text := range []string{"0", "-1", "1,", "1, 2", "x"} {
		if err := new(Counts).Set(text); err == nil {
			t.Errorf("Set(%q) is taken", text)
		}
	}
}
