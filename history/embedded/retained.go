package embedded

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// retained is the database as queries see it: without what is beyond the
// retention, though it may still be on disk.
type retained struct{ *DB }

// Querier implements storage.Queryable.
func (d retained) Querier(mint, maxt int64) (storage.Querier, error) {
	r, now := d.rules.Load(), time.Now()
	oldest := horizon(r.longest, now)
	q, err := d.db.Querier(max(mint, oldest), maxt)
	return retainedQuerier{q, r, now, oldest}, err
}

// ChunkQuerier implements storage.ChunkQueryable. Only remote read wants
// chunks, and it is not served.
func (retained) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	return storage.NoopChunkedQuerier(), nil
}

type retainedQuerier struct {
	storage.Querier
	rules  *rules
	now    time.Time
	oldest int64 // that any series keeps, in Unix milliseconds
}

// Select implements storage.Querier. The hints override the querier's times.
func (q retainedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if hints != nil && hints.Start < q.oldest {
		h := *hints
		h.Start, h.DisableTrimming = q.oldest, false
		hints = &h
	}
	set := q.Querier.Select(ctx, sorted, hints, ms...)
	if len(q.rules.shorter) == 0 {
		return set
	}
	return clippedSet{set, q}
}

// clippedSet are series without what is older than each keeps.
type clippedSet struct {
	storage.SeriesSet
	q retainedQuerier
}

// At implements storage.SeriesSet.
func (s clippedSet) At() storage.Series {
	series := s.SeriesSet.At()
	oldest := horizon(s.q.rules.Of(series.Labels()), s.q.now)
	if oldest <= s.q.oldest {
		return series
	}
	return clippedSeries{series, oldest}
}

type clippedSeries struct {
	storage.Series
	oldest int64
}

// Iterator implements storage.Series. To the engine what is too old is deleted.
func (s clippedSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*tsdb.DeletedIterator)
	if !ok {
		it = &tsdb.DeletedIterator{Iter: reuse}
	}
	it.Iter = s.Series.Iterator(it.Iter)
	it.Intervals = tombstones.Intervals{{Mint: math.MinInt64, Maxt: s.oldest - 1}}
	return it
}
