package history

import (
	"errors"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// numbered is a batch with its place in the order.
type numbered struct {
	seq    uint64
	points []Point
}

// runBuffered is run with a buffer: one goroutine empties the queue, so that it
// never fills while the engine keeps the other waiting. A batch goes straight to
// the engine while the buffer is empty, and through the buffer else.
func (w *Writer) runBuffered() {
	defer close(w.done)
	direct, kept := make(chan numbered), make(chan struct{}, 1)
	stopped := make(chan struct{})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		w.sendAll(direct, kept, stopped)
	}()
	w.collect(direct, kept)
	close(stopped)
	<-sent
}

// collect hands batches on until there are no more.
func (w *Writer) collect(direct chan<- numbered, kept chan<- struct{}) {
	w.batches(func(points []Point) {
		b := numbered{w.opts.Buffer.reserve(), points}
		if w.opts.Buffer.empty() {
			select {
			case direct <- b:
				return
			default: // it is busy
			}
		}
		w.keep(b)
		select {
		case kept <- struct{}{}:
		default:
		}
	})
}

// keep puts a batch into the buffer.
func (w *Writer) keep(b numbered) {
	dropped, err := w.opts.Buffer.put(b.seq, b.points)
	w.drop(dropBuffer, dropped)
	switch {
	case err != nil && !w.full:
		w.opts.Logger.Error("points of the history are lost", "err", err)
	case dropped > 0 && !w.full:
		w.opts.Logger.Warn("the history's buffer is full: the oldest points are dropped", "limit", w.opts.Buffer.limit)
	}
	w.full = err != nil || dropped > 0
}

// sendAll sends batches, oldest first, until nothing more comes and the buffer
// is empty, or the Writer must end; what is in the buffer then stays there.
func (w *Writer) sendAll(direct <-chan numbered, kept <-chan struct{}, stopped <-chan struct{}) {
	for w.hard.Err() == nil {
		if w.sendKept() {
			continue
		}
		select {
		case b := <-direct:
			w.sendDirect(b)
		case <-kept:
		case <-stopped:
			if w.opts.Buffer.empty() {
				return
			}
		case <-w.hard.Done():
		}
	}
}

func (w *Writer) sendDirect(b numbered) {
	err := w.once(b.points)
	switch {
	case err == nil:
		w.stored.Add(float64(len(b.points)))
	case errors.Is(err, ErrRejected):
		w.isolate(b.points, err)
	default:
		w.opts.Logger.Warn("the history does not take points; keeping them and trying again", "err", err)
		w.retries.Inc()
		w.keep(b)
		w.rest(firstBackoff)
	}
}

// sendKept sends the oldest batch of the buffer, again and again until the
// engine takes or refuses it or the Writer must end. It reports whether there
// was one.
func (w *Writer) sendKept() bool {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		f, req, ok, err := w.opts.Buffer.oldest() // another one, if this was dropped
		if !ok {
			return false
		}
		if err != nil {
			w.opts.Logger.Warn("points of the history are lost", "err", err)
			w.drop(dropBuffer, f.points)
			return true
		}
		points := pointsOf(req)
		err = w.once(points)
		switch {
		case err == nil:
			w.stored.Add(float64(f.points))
		case errors.Is(err, ErrRejected):
			if w.isolate(points, err); w.hard.Err() != nil {
				return true // it is sent again after a restart
			}
		default:
			w.retries.Inc()
			if w.rest(wait); w.hard.Err() != nil {
				return true
			}
			continue
		}
		w.opts.Buffer.done(f)
		if w.opts.Buffer.empty() {
			w.opts.Logger.Info("the history has all points that were kept")
		}
		return true
	}
}

// rest waits before the next attempt, unless the Writer must end.
func (w *Writer) rest(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.hard.Done():
	}
}

// pointsOf returns what a request holds.
func pointsOf(req *prompb.WriteRequest) []Point {
	var points []Point
	for _, ts := range req.Timeseries {
		var metric string
		var labels []Label
		for _, l := range ts.Labels {
			if l.Name == "__name__" {
				metric = l.Value
				continue
			}
			labels = append(labels, Label{l.Name, l.Value})
		}
		for _, s := range ts.Samples {
			points = append(points, Point{Metric: metric, Labels: labels, At: time.UnixMilli(s.Timestamp), Value: s.Value})
		}
	}
	return points
}
