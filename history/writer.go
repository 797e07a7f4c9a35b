package history

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WriterOptions are how a Writer works. The zero value of each is its default.
type WriterOptions struct {
	Queue    int           // points held while the engine is away; 100,000
	Batch    int           // points per write; 5,000
	Interval time.Duration // longest wait of a point before its write; 1 s
	Timeout  time.Duration // of one write; 30 s

	// Buffer keeps points on disk while the engine is away, and across a restart;
	// nil for memory only.
	Buffer *Buffer

	Logger     *slog.Logger          // slog.Default()
	Registerer prometheus.Registerer // none: the metrics are kept but not shown
}

// The waits between retries: doubled from the first to the longest.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 15 * time.Second
)

// Writer stores points in the background. It never blocks who calls it: while
// the engine is away it holds a bounded number of points, then forgets the
// oldest and counts them.
type Writer struct {
	client *Client
	opts   WriterOptions

	mu     sync.Mutex
	queue  ring
	closed bool

	full bool // the buffer is; for the log

	wake     chan struct{} // a full batch waits
	stop     chan struct{} // no more points come
	done     chan struct{} // everything is stored or dropped
	hard     context.Context
	hardStop context.CancelFunc

	stored  prometheus.Counter
	dropped *prometheus.CounterVec
	retries prometheus.Counter
}

// NewWriter starts a Writer to the client's engine. Close it.
func NewWriter(c *Client, opts WriterOptions) *Writer {
	def(&opts.Queue, 100_000)
	def(&opts.Batch, 5_000)
	def(&opts.Interval, time.Second)
	def(&opts.Timeout, 30*time.Second)
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	w := &Writer{
		client: c, opts: opts,
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
		stored: prometheus.NewCounter(prometheus.CounterOpts{Name: "gnomon_history_samples_total",
			Help: "Points stored in the history."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gnomon_history_samples_dropped_total",
			Help: "Points lost, by reason: the queue or the buffer was full, the engine refused them, or they came at or after the end."}, []string{"reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "gnomon_history_retries_total",
			Help: "Writes to the history that failed and were tried again."}),
	}
	for _, reason := range []string{dropFull, dropRejected, dropClosed, dropBuffer} {
		w.dropped.WithLabelValues(reason)
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(w.stored, w.dropped, w.retries, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gnomon_history_queue_samples", Help: "Points that wait to be stored."}, func() float64 { return float64(w.queued()) }))
	}
	w.hard, w.hardStop = context.WithCancel(context.Background())
	if opts.Buffer == nil {
		go w.run()
		return w
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gnomon_history_buffer_bytes", Help: "Size of the points kept on disk until they are stored."}, func() float64 {
			_, bytes := opts.Buffer.size()
			return float64(bytes)
		}))
	}
	go w.runBuffered()
	return w
}

func def[T int | time.Duration](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// The reasons for which points are dropped.
const (
	dropFull     = "queue_full"
	dropRejected = "rejected"
	dropClosed   = "closed"
	dropBuffer   = "buffer_full"
)

// Write queues points and returns at once. The points are the Writer's from
// then on.
func (w *Writer) Write(points ...Point) {
	w.mu.Lock()
	var lost int
	reason := dropFull
	if w.closed {
		lost, reason = len(points), dropClosed
	} else {
		lost = w.queue.push(points, w.opts.Queue)
	}
	full := w.queue.len() >= w.opts.Batch
	w.mu.Unlock()
	w.drop(reason, lost)
	if full {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Close stores what is queued and stops. When ctx ends first, what is left stays
// in the buffer, or is dropped without one, and ctx's error is returned. Points
// written after Close are dropped.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	defer w.hardStop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		w.hardStop()
		<-w.done
		return ctx.Err()
	}
}

func (w *Writer) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.len()
}

func (w *Writer) take() []Point {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.pop(w.opts.Batch)
}

func (w *Writer) drop(reason string, n int) {
	if n > 0 {
		w.dropped.WithLabelValues(reason).Add(float64(n))
	}
}

func (w *Writer) run() {
	defer close(w.done)
	w.batches(w.store)
}

// batches calls f for each batch as it is due, until the Writer is to stop and
// its queue is empty.
func (w *Writer) batches(f func([]Point)) {
	tick := time.NewTicker(w.opts.Interval)
	defer tick.Stop()
	for {
		stopping := false
		select {
		case <-tick.C:
		case <-w.wake:
		case <-w.stop:
			stopping = true
		}
		for batch := w.take(); len(batch) > 0; batch = w.take() {
			f(batch)
		}
		if stopping {
			return
		}
	}
}

// store writes a batch, again and again until the engine takes or refuses it
// or the Writer must end.
func (w *Writer) store(batch []Point) {
	wait := firstBackoff
	for failed := false; ; failed = true {
		err := w.once(batch)
		switch {
		case err == nil:
			w.stored.Add(float64(len(batch)))
			if failed {
				w.opts.Logger.Info("the history takes points again")
			}
			return
		case errors.Is(err, ErrRejected):
			w.isolate(batch, err)
			return
		case w.hard.Err() != nil:
			w.drop(dropClosed, len(batch))
			return
		}
		if !failed {
			w.opts.Logger.Warn("the history does not take points; holding them and trying again", "err", err)
		}
		w.retries.Inc()
		select {
		case <-time.After(wait):
		case <-w.hard.Done():
		}
		wait = min(2*wait, lastBackoff)
	}
}

func (w *Writer) once(batch []Point) error {
	ctx, cancel := context.WithTimeout(w.hard, w.opts.Timeout)
	defer cancel()
	return w.client.Write(ctx, batch)
}

// isolate halves a refused batch until only the points at fault are dropped:
// engines refuse a whole request for one point they do not like.
func (w *Writer) isolate(batch []Point, err error) {
	if len(batch) == 1 {
		w.opts.Logger.Warn("the history refused a point", "metric", batch[0].Metric, "at", batch[0].At, "err", err)
		w.drop(dropRejected, 1)
		return
	}
	half := len(batch) / 2
	w.store(batch[:half])
	w.store(batch[half:])
}
