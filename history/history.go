// Package history keeps every sample, forecast and decision as time series. It
// speaks the Prometheus HTTP API, and only that: to the engine embedded in the
// server and to an external one alike.
package history

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	prom "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// Label is one name and value that tell series of the same metric apart.
type Label struct{ Name, Value string }

// Point is one value of one series at one instant, in the metric's unit.
type Point struct {
	Metric string
	Labels []Label // in any order; empty values count as absent
	At     time.Time
	Value  float64

	// Event marks a value that must not replace another of its series at the
	// same millisecond: it is moved to the next free one. Of other points of
	// the same instant the last wins.
	Event bool
}

// maxSteps is how many steps one range query asks for. Prometheus refuses
// more than 11,000.
const maxSteps = 10_000

// Client talks to one history: an engine that speaks the Prometheus HTTP API.
// It may be used concurrently.
type Client struct {
	base *url.URL
	http *http.Client
	api  prom.API
}

// New returns a client of the engine at address, the URL below which /api/v1
// is found. A nil transport is http.DefaultTransport.
func New(address string, transport http.RoundTripper) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("parse history URL: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("parse history URL %q: want something like http://host:port/path", address)
	}
	base.Path = strings.TrimRight(base.Path, "/")
	if transport == nil {
		transport = http.DefaultTransport
	}
	hc := &http.Client{Transport: transport}
	c, err := api.NewClient(api.Config{Address: base.String(), Client: hc})
	if err != nil {
		return nil, fmt.Errorf("open history %s: %w", address, err)
	}
	return &Client{base: base, http: hc, api: prom.NewAPI(c)}, nil
}

// Query evaluates a PromQL expression at one instant.
func (c *Client) Query(ctx context.Context, expr string, at time.Time) (model.Value, error) {
	v, _, _, err := c.api.Query(ctx, expr, at)
	if err != nil {
		return nil, fmt.Errorf("query history: %w", queryError(err))
	}
	return v, nil
}

// Range evaluates a PromQL expression at every step from start to end, both
// moved back to a multiple of step so that engines agree on the instants.
// Step is at least 1 ms.
func (c *Client) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) (model.Matrix, error) {
	step = step.Truncate(time.Millisecond)
	if step <= 0 {
		return nil, errors.New("query history: the step must be at least 1ms")
	}
	start, end = align(start, step), align(end, step)
	if end.Before(start) {
		return nil, fmt.Errorf("query history: the end %s is before the start %s", end.Format(time.RFC3339), start.Format(time.RFC3339))
	}
	var parts []model.Matrix
	for from := start; !from.After(end); from = from.Add(maxSteps * step) {
		to := from.Add((maxSteps - 1) * step)
		if to.After(end) {
			to = end
		}
		v, _, _, err := c.api.QueryRange(ctx, expr, prom.Range{Start: from, End: to, Step: step})
		if err != nil {
			return nil, fmt.Errorf("query history: %w", queryError(err))
		}
		m, ok := v.(model.Matrix)
		if !ok {
			return nil, fmt.Errorf("query history: the engine answered a %s to a range query", v.Type())
		}
		parts = append(parts, m)
	}
	return join(parts), nil
}

// join concatenates the parts of each series, in the order in which series
// first appear.
func join(parts []model.Matrix) model.Matrix {
	if len(parts) == 1 {
		return parts[0]
	}
	var all model.Matrix
	seen := map[model.Fingerprint]*model.SampleStream{}
	for _, part := range parts {
		for _, s := range part {
			id := s.Metric.Fingerprint()
			if whole, ok := seen[id]; ok {
				whole.Values = append(whole.Values, s.Values...)
				continue
			}
			seen[id] = s
			all = append(all, s)
		}
	}
	return all
}

// align returns t moved back to a multiple of step since the Unix epoch, which
// is how the engines count.
func align(t time.Time, step time.Duration) time.Time {
	ms := t.UnixMilli()
	return time.UnixMilli(ms - ms%step.Milliseconds())
}

// queryError adds the engine's own words, which the API client keeps apart.
func queryError(err error) error {
	var e *prom.Error
	if errors.As(err, &e) && e.Detail != "" {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(firstLine(e.Detail)))
	}
	return err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
