package history

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// ErrRejected is returned when the engine refuses points for good: too old,
// out of its order, or malformed. Sending the same again does not help.
var ErrRejected = errors.New("the history refused these points")

// The bounds of one write request. A request spans little time, because some
// engines refuse what lies more than an hour behind the newest value they hold.
const (
	maxRequestPoints = 10_000
	maxRequestSpan   = 30 * time.Minute
)

// Write stores points, oldest first, in as few requests as it takes. Requests
// before one that fails stay stored; the error wraps ErrRejected where a retry
// is useless.
func (c *Client) Write(ctx context.Context, points []Point) error {
	points = sorted(points)
	for len(points) > 0 {
		n := 1
		for n < len(points) && n < maxRequestPoints && points[n].At.Sub(points[0].At) <= maxRequestSpan {
			n++
		}
		if err := c.send(ctx, encode(points[:n])); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
		points = points[n:]
	}
	return nil
}

// sorted returns points in order of time.
func sorted(points []Point) []Point {
	points = slices.Clone(points)
	slices.SortStableFunc(points, func(a, b Point) int { return a.At.Compare(b.At) })
	return points
}

// encode groups points, which are in order of time, by series.
func encode(points []Point) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	index := map[string]int{}
	for _, p := range points {
		labels, key := seriesOf(p)
		i, ok := index[key]
		if !ok {
			i = len(req.Timeseries)
			index[key] = i
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: labels})
		}
		req.Timeseries[i].Samples = place(req.Timeseries[i].Samples, p)
	}
	return req
}

// place appends p, whose time is not before that of the point before it.
func place(samples []prompb.Sample, p Point) []prompb.Sample {
	s := prompb.Sample{Timestamp: p.At.UnixMilli(), Value: p.Value}
	last := len(samples) - 1
	if last < 0 || samples[last].Timestamp < s.Timestamp {
		return append(samples, s)
	}
	if !p.Event {
		samples[last] = s
		return samples
	}
	s.Timestamp = samples[last].Timestamp + 1
	return append(samples, s)
}

// seriesOf returns the point's labels as the protocol wants them, sorted and
// without empty ones, and a key that is the same for the same series.
func seriesOf(p Point) ([]prompb.Label, string) {
	labels := make([]prompb.Label, 0, len(p.Labels)+1)
	labels = append(labels, prompb.Label{Name: "__name__", Value: p.Metric})
	for _, l := range p.Labels {
		if l.Value != "" {
			labels = append(labels, prompb.Label{Name: l.Name, Value: strings.ToValidUTF8(l.Value, "\uFFFD")})
		}
	}
	slices.SortFunc(labels, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	var key strings.Builder
	for _, l := range labels {
		key.WriteString(l.Name)
		key.WriteByte(0xff) // not in valid UTF-8, so no two series share a key
		key.WriteString(l.Value)
		key.WriteByte(0xff)
	}
	return labels, key.String()
}

// send posts one request by remote write 1.0, the version every engine takes.
func (c *Client) send(ctx context.Context, write *prompb.WriteRequest) error {
	raw, err := write.Marshal()
	if err != nil {
		return fmt.Errorf("encode points: %w", err)
	}
	url := c.base.JoinPath("api/v1/write").String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(snappy.Encode(nil, raw)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "gnomon")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	text := firstLine(string(body))
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case rejected(res.StatusCode, text):
		return fmt.Errorf("%w: %s: %s", ErrRejected, res.Status, text)
	default:
		return fmt.Errorf("%s: %s", res.Status, text)
	}
}

// rejected tells answers to the points themselves from failures of the engine
// or of the way to it. Prometheus before 2.45 answers 500 to points older than
// it takes.
func rejected(status int, text string) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	case http.StatusInternalServerError:
		return text == "too old sample"
	}
	return false
}
