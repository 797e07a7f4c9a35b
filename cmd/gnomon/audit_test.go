package main

import (
	"slices"
	"testing"
)

func TestDifferences(t *testing.T) {
	for _, c := range []struct {
		before, after string
		want          []string
	}{
		{"", `{"name":"acme","host":"node1","labels":{"zone":"a"}}`, []string{"host: - → node1", "labels.zone: - → a", "name: - → acme"}},
		{`{"values":{"hold":"1s","quota":"cpu=1"},"n":1796005060946589266}`, `{"values":{"hold":"2s","quota":"cpu=1"},"n":1796005060946589266}`, []string{"values.hold: 1s → 2s"}},
		{`{"name":"acme"}`, "", []string{"name: acme → -"}},
		{`{"name":"ac…`, `{"name":"acme"}`, []string{`{"name":"ac… → {"name":"acme"}`}},
		{`{"a":1}`, `{"a":1}`, nil},
	} {
		if got := differences(c.before, c.after); !slices.Equal(got, c.want) {
			t.Errorf("differences(%s, %s) = %q, want %q", c.before, c.after, got, c.want)
		}
	}
}
