package embedded

import (
	"fmt"
	"math"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/gnomon-vm/gnomon/history"
)

// rules are a retention with what follows from it.
type rules struct {
	history.Retention
	longest time.Duration
	shorter []history.Group // those that are kept less than the longest
}

// Retention returns for how long values are kept.
func (d *DB) Retention() history.Retention { return d.rules.Load().Retention }

// SetRetention changes for how long values are kept. Older ones are no longer
// found from now on; their disk space is freed in the background, a block of
// up to 24 h at a time.
func (d *DB) SetRetention(r history.Retention) error {
	longest := r.Longest()
	var shorter []history.Group
	for _, g := range r.Groups() {
		if g.Keep <= 0 {
			return fmt.Errorf("set history retention: want more than 0, got %s", g.Keep)
		}
		if g.Keep < longest {
			shorter = append(shorter, g)
		}
	}
	d.rules.Store(&rules{r, longest, shorter})
	return nil
}

// horizon returns the oldest time that is kept for a period, in Unix
// milliseconds. No period is for ever.
func horizon(keep time.Duration, now time.Time) int64 {
	if keep == 0 {
		return math.MinInt64
	}
	return now.Add(-keep).UnixMilli()
}

// deletable returns the blocks that hold nothing worth keeping. Unlike the
// engine's own rule it counts from now, not from the newest block, so that a
// history that nobody writes to expires too.
func (d *DB) deletable(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
	oldest := horizon(d.rules.Load().longest, time.Now())
	gone := map[ulid.ULID]struct{}{}
	for _, b := range blocks {
		if m := b.Meta(); m.Compaction.Deletable || m.MaxTime <= oldest {
			gone[m.ULID] = struct{}{}
		}
	}
	return gone
}
