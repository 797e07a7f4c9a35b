package embedded

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/gnomon-vm/gnomon/history"
)

const (
	sweepPeriod = time.Minute
	cleanPeriod = time.Hour       // between rewrites of blocks, which take reading and writing them whole
	sweepGrace  = 2 * time.Second // for a rewrite under way when the database is closed
)

// sweeper frees the disk of what is kept less long than the rest. Blocks that
// hold nothing to keep at all are the engine's to delete.
type sweeper struct {
	db      *tsdb.DB
	reached map[string]int64 // by group, up to when it has been deleted
	cleaned time.Time
}

// keepSwept sweeps until ctx ends.
func (d *DB) keepSwept(ctx context.Context, every time.Duration) {
	s := sweeper{db: d.db}
	d.again(ctx, every, "the disk space of old values is not freed", func(ctx context.Context, now time.Time) error {
		return s.sweep(ctx, d.rules.Load().shorter, now)
	})
}

// again does something again and again until ctx ends, and complains when it
// begins to fail.
func (d *DB) again(ctx context.Context, every time.Duration, complaint string, do func(ctx context.Context, now time.Time) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := do(ctx, time.Now())
		if err != nil && !failing && ctx.Err() == nil {
			d.log.Warn(complaint+"; trying again", "err", err)
		}
		failing = err != nil
	}
}

// sweep deletes what the groups no longer keep. It does so by whole blocks, so
// that each is rewritten once a period, not all the time: until then queries
// do not find what is too old. The newest hours, which are in memory, become
// blocks first.
func (s *sweeper) sweep(ctx context.Context, groups []history.Group, now time.Time) error {
	reached := map[string]int64{}
	for _, g := range groups {
		end, ok := s.endOfBlocks(horizon(g.Keep, now))
		if !ok {
			continue
		}
		key := fmt.Sprint(g.Matchers)
		if s.reached[key] != end {
			if err := s.db.Delete(ctx, math.MinInt64, end-1, g.Matchers...); err != nil {
				return fmt.Errorf("delete values beyond %s: %w", g.Keep, err)
			}
		}
		reached[key] = end
	}
	s.reached = reached
	if !s.marked() || now.Sub(s.cleaned) < cleanPeriod {
		return nil
	}
	s.cleaned = now
	if err := s.db.CleanTombstones(); err != nil {
		return fmt.Errorf("rewrite blocks: %w", err)
	}
	return nil
}

// endOfBlocks returns the latest end of a block that is wholly before a time
// and before what is in memory.
func (s *sweeper) endOfBlocks(before int64) (end int64, ok bool) {
	before = min(before, s.db.Head().MinTime())
	end = math.MinInt64
	for _, b := range s.db.Blocks() {
		if m := b.MaxTime(); m <= before && m > end {
			end, ok = m, true
		}
	}
	return end, ok
}

// marked tells whether any block has values that are deleted and still there.
func (s *sweeper) marked() bool {
	for _, b := range s.db.Blocks() {
		if b.Meta().Stats.NumTombstones > 0 {
			return true
		}
	}
	return false
}
