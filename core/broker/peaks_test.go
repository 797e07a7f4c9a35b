package broker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The window's maximum covers all of the window, and nothing older than the
// window and one bucket; and it stays small however many values come.
func TestPeaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type value struct {
			at time.Time
			v  int64
		}
		const hold = 32 * time.Second
		var p peaks
		var all []value
		now := time.Unix(0, 0)
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			v := rapid.Int64Range(0, 1000).Draw(t, "v")
			p.add(now, v, hold)
			all = append(all, value{now, v})

			window := time.Duration(rapid.IntRange(0, 32).Draw(t, "window")) * time.Second
			var least, most int64
			for _, o := range all {
				if !o.at.Before(now.Add(-window)) {
					least = max(least, o.v)
				}
				if !o.at.Before(now.Add(-window - hold/bucketsPerHold)) {
					most = max(most, o.v)
				}
			}
			if got := p.max(now.Add(-window)); got < least || got > most {
				t.Fatalf("highest of the last %v is %d, want %d to %d", window, got, least, most)
			}
			if len(p.buckets) > bucketsPerHold+2 {
				t.Fatalf("%d buckets", len(p.buckets))
			}
		}
	})
}
