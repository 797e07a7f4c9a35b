package embedded

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// lenient is the way into the database for the write handler, which would give
// up a whole request for one value that comes too late: here that value alone
// is left out, and counted.
type lenient struct {
	db      *tsdb.DB
	refused prometheus.Counter
	bounded bool // refuse what comes later than lateness; the engine takes it for means
}

// AppenderV2 implements storage.AppendableV2.
func (l lenient) AppenderV2(ctx context.Context) storage.AppenderV2 {
	a := &lenientAppender{AppenderV2: l.db.AppenderV2(ctx), refused: l.refused, oldest: math.MinInt64}
	if newest := l.db.Head().MaxTime(); l.bounded && newest > math.MinInt64 {
		a.oldest = newest - lateness.Milliseconds()
	}
	if ex, ok := a.AppenderV2.(storage.ExemplarAppenderV2); ok {
		a.exemplars = ex
	}
	return a
}

type lenientAppender struct {
	storage.AppenderV2
	exemplars storage.ExemplarAppenderV2
	refused   prometheus.Counter
	oldest    int64 // time of what is taken
}

// Append implements storage.AppenderV2.
func (a *lenientAppender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AppendV2Options) (storage.SeriesRef, error) {
	if t < a.oldest {
		a.refused.Inc()
		return ref, nil
	}
	got, err := a.AppenderV2.Append(ref, ls, st, t, v, h, fh, opts)
	if errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrTooOldSample) ||
		errors.Is(err, storage.ErrOutOfBounds) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
		a.refused.Inc()
		return ref, nil
	}
	return got, err
}

// AppendExemplars implements storage.ExemplarAppenderV2.
func (a *lenientAppender) AppendExemplars(ref storage.SeriesRef, ls labels.Labels, es []exemplar.Exemplar) (storage.SeriesRef, error) {
	if a.exemplars == nil {
		return ref, nil
	}
	return a.exemplars.AppendExemplars(ref, ls, es)
}
