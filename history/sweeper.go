package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// ErrKeepsAll is returned for an engine that nothing can be deleted from.
var ErrKeepsAll = errors.New("the history's engine deletes nothing")

// own matches the metrics of the schema: an engine may hold others'.
var own = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, "gnomon_.+")

// Sweep has an external engine delete what is beyond a retention:
//
//   - Prometheus, if it was started with --web.enable-admin-api, the values of
//     each series that are too old;
//   - VictoriaMetrics, which deletes whole series only, those that have no value
//     within their period, such as of a VM that ended.
//
// For others it returns ErrKeepsAll with what can be done.
func (c *Client) Sweep(ctx context.Context, r Retention, now time.Time) error {
	sweep, err := c.deletes(ctx)
	if err != nil {
		return fmt.Errorf("sweep history: %w", err)
	}
	for _, g := range r.Groups() {
		if g.Keep <= 0 {
			continue
		}
		if err := sweep(ctx, g, now); err != nil {
			return fmt.Errorf("sweep history of what is older than %s: %w", g.Keep, err)
		}
	}
	return nil
}

// deletes finds out how the engine deletes.
func (c *Client) deletes(ctx context.Context) (func(context.Context, Group, time.Time) error, error) {
	victoria, err := c.isVictoriaMetrics(ctx)
	if err != nil {
		return nil, err
	}
	if victoria {
		return c.sweepSeries, nil
	}
	// An engine that knows the call and not the times would delete all.
	info, err := c.api.Buildinfo(ctx)
	if err != nil {
		return nil, queryError(err)
	}
	if info.Version == "" || info.Branch == "" || info.GoVersion == "" {
		return nil, fmt.Errorf("%w: it is neither Prometheus nor VictoriaMetrics: set how long it keeps values there", ErrKeepsAll)
	}
	return c.sweepValues, nil
}

// isVictoriaMetrics asks for the engine's own metrics, which name it.
func (c *Client) isVictoriaMetrics(ctx context.Context) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath("metrics").String(), nil)
	if err != nil {
		return false, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	const enough = 4 << 20
	for lines := bufio.NewScanner(io.LimitReader(res.Body, enough)); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "vm_app_version") {
			return true, nil
		}
	}
	return false, nil
}

// sweepValues deletes a group's values that are too old.
func (c *Client) sweepValues(ctx context.Context, g Group, now time.Time) error {
	err := c.api.DeleteSeries(ctx, []string{selector(g)}, time.Unix(0, 0), now.Add(-g.Keep))
	if err == nil {
		return nil
	}
	if err = queryError(err); strings.Contains(err.Error(), "admin APIs disabled") {
		return fmt.Errorf("%w: start Prometheus with --web.enable-admin-api", ErrKeepsAll)
	}
	return err
}

// sweepSeries deletes a group's series that have ended too long ago: those of
// VMs, and of hosts.
func (c *Client) sweepSeries(ctx context.Context, g Group, now time.Time) error {
	for label, more := range map[string]*labels.Matcher{
		"vm_id": nil, "host": labels.MustNewMatcher(labels.MatchEqual, "vm_id", ""),
	} {
		of := g
		if more != nil {
			of.Matchers = append(append([]*labels.Matcher{}, g.Matchers...), more)
		}
		ended, err := c.ended(ctx, label, of, now)
		if err != nil {
			return err
		}
		if len(ended) == 0 {
			continue
		}
		of.Matchers = append(append([]*labels.Matcher{}, of.Matchers...), among(labels.MatchRegexp, label, ended))
		if err := c.api.DeleteSeries(ctx, []string{selector(of)}, time.Time{}, time.Time{}); err != nil {
			return queryError(err)
		}
	}
	return nil
}

// ended returns the values of a label whose series of a group have no value
// within the group's period. The engine looks whole days up, so that what ended
// is seen up to a day late.
func (c *Client) ended(ctx context.Context, label string, g Group, now time.Time) ([]string, error) {
	values := func(from time.Time) (map[string]bool, error) {
		found, _, _, err := c.api.LabelValues(ctx, label, []string{selector(g)}, from, now)
		if err != nil {
			return nil, queryError(err)
		}
		set := make(map[string]bool, len(found))
		for _, v := range found {
			set[string(v)] = true
		}
		return set, nil
	}
	all, err := values(time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	alive, err := values(now.Add(-g.Keep))
	if err != nil {
		return nil, err
	}
	var ended []string
	for v := range all {
		if !alive[v] && v != "" {
			ended = append(ended, v)
		}
	}
	return ended, nil
}

// selector is a group in PromQL, of the schema's metrics only.
func selector(g Group) string {
	parts := []string{own.String()}
	for _, m := range g.Matchers {
		parts = append(parts, m.String())
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// The pauses of a Sweeper.
const (
	sweepEvery   = time.Hour
	sweepRetry   = time.Minute
	sweepTimeout = 10 * time.Minute
)

// Sweeper sweeps an external engine, again and again.
type Sweeper struct {
	c         *Client
	log       *slog.Logger
	retention atomic.Pointer[Retention]
	changed   chan struct{} // has a value after a change
}

// NewSweeper returns a Sweeper of the client's engine. It deletes nothing until it
// has been told for how long to keep what.
func NewSweeper(c *Client, log *slog.Logger) *Sweeper {
	return &Sweeper{c: c, log: log, changed: make(chan struct{}, 1)}
}

// SetRetention changes for how long what is kept. It does not wait.
func (s *Sweeper) SetRetention(r Retention) {
	s.retention.Store(&r)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run sweeps every hour, and after a change, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	failing := false
	for {
		pause := sweepEvery
		if r := s.retention.Load(); r != nil {
			sweeping, cancel := context.WithTimeout(ctx, sweepTimeout)
			err := s.c.Sweep(sweeping, *r, time.Now())
			cancel()
			if err != nil && ctx.Err() == nil && !failing {
				s.log.Warn("old values stay in the history; trying again", "err", err)
			}
			if failing = err != nil; failing && !errors.Is(err, ErrKeepsAll) {
				pause = sweepRetry
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-time.After(pause):
		}
	}
}
