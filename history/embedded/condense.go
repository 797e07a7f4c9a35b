package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/gnomon-vm/gnomon/history"
)

const (
	// condensePeriod is how often what is settled is condensed.
	condensePeriod = time.Minute

	// condenseChunk is how much time is condensed at once, so that catching up
	// takes no more memory than going on.
	condenseChunk = 6 * time.Hour

	// catchUp is how far back means and maxima are made up for.
	catchUp = 90 * 24 * time.Hour

	// progressFile is in the database's directory, which the engine leaves alone.
	progressFile = "condensed.json"
)

// condenser adds the means and maxima of each level. It does so once no value can
// come late any more, so that a result is final: making it again, as after a
// crash, changes nothing.
type condenser struct {
	d    *DB
	done map[string]time.Time // by level, up to when
}

func (d *DB) newCondenser() (*condenser, error) {
	c := &condenser{d: d, done: map[string]time.Time{}}
	b, err := os.ReadFile(filepath.Join(d.dir, progressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c.done)
	}
	if err != nil {
		return c, fmt.Errorf("read how far the history is condensed: %w", err)
	}
	return c, nil
}

// save notes how far it has come.
func (c *condenser) save() error {
	b, err := json.Marshal(c.done)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(c.d.dir, progressFile), b, 0o600, renameio.WithTempDir(c.d.dir))
}

// keepCondensed condenses until ctx ends.
func (d *DB) keepCondensed(ctx context.Context, every time.Duration) {
	c, err := d.newCondenser()
	if err != nil {
		d.log.Warn("means and maxima are made anew", "err", err)
	}
	d.again(ctx, every, "the history is not condensed", c.condense)
}

// condense adds what is settled at a time and was not added yet.
func (c *condenser) condense(ctx context.Context, now time.Time) error {
	first, any := c.d.oldest()
	if !any {
		return nil
	}
	if limit := now.Add(-catchUp); first.Before(limit) {
		first = limit
	}
	for _, l := range history.Levels {
		settled := now.Add(-lateness).Truncate(l.Span)
		from := c.done[l.Name]
		if from.Before(first) {
			from = first.Truncate(l.Span)
		}
		for from.Before(settled) {
			to := from.Add(condenseChunk)
			if to.After(settled) {
				to = settled
			}
			if err := c.add(ctx, l, from, to); err != nil {
				return fmt.Errorf("condense %s of %s: %w", l.Name, to.UTC().Format(time.RFC3339), err)
			}
			c.done[l.Name], from = to, to
			if err := c.save(); err != nil {
				return fmt.Errorf("note how far the history is condensed: %w", err)
			}
		}
	}
	return nil
}

// oldest returns the time of the oldest value that there is.
func (d *DB) oldest() (time.Time, bool) {
	if blocks := d.db.Blocks(); len(blocks) > 0 {
		return time.UnixMilli(blocks[0].MinTime()), true
	}
	if h := d.db.Head(); h.NumSeries() > 0 {
		return time.UnixMilli(h.MinTime()), true
	}
	return time.Time{}, false
}

// add adds the values of a level after from and up to to, both multiples of its
// span.
func (c *condenser) add(ctx context.Context, l history.Level, from, to time.Time) error {
	for _, rule := range l.Rules() {
		if err := c.addRule(ctx, rule, l.Span, from, to); err != nil {
			return fmt.Errorf("%s: %w", rule.Metric, err)
		}
	}
	return nil
}

func (c *condenser) addRule(ctx context.Context, rule history.Rule, span time.Duration, from, to time.Time) error {
	q, err := c.d.engine.NewRangeQuery(ctx, c.d.db, nil, rule.Expr, from.Add(span), to, span)
	if err != nil {
		return err
	}
	defer q.Close()
	matrix, err := q.Exec(ctx).Matrix()
	if err != nil {
		return err
	}
	again := prometheus.NewCounter(prometheus.CounterOpts{Name: "again"}) // not a loss
	in := lenient{c.d.db, again, false}.AppenderV2(ctx)
	for _, series := range matrix {
		ls := labels.NewBuilder(series.Metric).Set(model.MetricNameLabel, rule.Metric).Labels()
		for _, p := range series.Floats {
			if _, err := in.Append(0, ls, 0, p.T, p.F, nil, nil, storage.AppendV2Options{}); err != nil {
				return errors.Join(err, in.Rollback())
			}
		}
	}
	return in.Commit()
}
