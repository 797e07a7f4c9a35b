// Package embedded is the time-series database inside the server: the engine
// and the HTTP API of Prometheus on a directory of its own.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/gnomon-vm/gnomon/history"
)

// ErrLocked is returned when another process has the directory open.
var ErrLocked = errors.New("another process has this history open")

// Options are how a database is opened.
type Options struct {
	Version    string                // told at /api/v1/status/buildinfo
	Logger     *slog.Logger          // slog.Default()
	Registerer prometheus.Registerer // of the engine's own metrics; none

	reload time.Duration // between looks for blocks to delete; 1 min
	sweep  time.Duration // between deletions within blocks; sweepPeriod
	means  time.Duration // between looks for what can be condensed; condensePeriod
}

const (
	lateness     = 2 * time.Hour  // how far behind the newest value a value may come: hosts keep theirs through an outage
	blockSpan    = 2 * time.Hour  // what is kept in memory before it becomes a block
	maxBlockSpan = 24 * time.Hour // small blocks, so that a shorter retention soon frees disk
	walSegment   = 8 << 20        // bytes
	queryTimeout = 30 * time.Second
	querySamples = 10_000_000 // in memory per query: 160 MB at most
	lookback     = 5 * time.Minute
)

// DB is an open database. It serves the Prometheus HTTP API and may be used
// concurrently.
type DB struct {
	dir     string
	db      *tsdb.DB
	engine  *promql.Engine
	handler http.Handler
	rules   atomic.Pointer[rules]
	dropped prometheus.Counter
	log     *slog.Logger

	stop    context.CancelFunc
	running sync.WaitGroup // sweeping and condensing
}

// Open opens the database in dir and creates what is missing. Everything is
// kept until SetRetention says for how long. Damaged parts are moved beside dir
// and the log tells so. It returns ErrLocked when another process has it open.
//
// A full disk fails writes, not the database: it serves what it has, and takes
// values again when there is room.
func Open(dir string, opts Options) (*DB, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("open history in %s: not a directory", dir)
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if entries, err := os.ReadDir(dir); len(entries) == 0 && (err == nil || os.IsNotExist(err)) {
		opts.Logger.Info("starting an empty history", "dir", dir)
	}
	d := &DB{dir: dir, log: opts.Logger, dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gnomon_history_refused_samples_total",
		Help: "Values not stored because they came too late, too early, or for an instant that has one."})}
	if opts.Registerer != nil {
		if err := opts.Registerer.Register(d.dropped); err != nil {
			return nil, fmt.Errorf("open history in %s: %w", dir, err)
		}
	}
	d.rules.Store(&rules{}) // keeps everything
	if d.db, err = d.open(opts); err != nil {
		return nil, fmt.Errorf("open history in %s: %w", dir, err)
	}
	d.engine = promql.NewEngine(promql.EngineOpts{
		Logger:               opts.Logger,
		Reg:                  opts.Registerer,
		MaxSamples:           querySamples,
		Timeout:              queryTimeout,
		LookbackDelta:        lookback,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		Parser:               parser.NewParser(parser.Options{}),
	})
	d.handler = newHandler(d, opts)
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.running.Go(func() { d.keepSwept(ctx, cmp.Or(opts.sweep, sweepPeriod)) })
	d.running.Go(func() { d.keepCondensed(ctx, cmp.Or(opts.means, condensePeriod)) })
	return d, nil
}

// open opens the directory; if it is damaged, what is left of it.
func (d *DB) open(opts Options) (*tsdb.DB, error) {
	db, err := tsdb.Open(d.dir, d.engineLog(), opts.Registerer, d.options(opts), nil)
	if err == nil || fatal(err) {
		return db, explain(err)
	}
	d.log.Warn("the history is damaged; setting aside what cannot be read", "dir", d.dir, "err", err)
	if err := setAsideBlocks(d.dir, d.log); err != nil {
		return nil, err
	}
	// The first attempt has left the engine's metrics registered, and they
	// cannot be registered twice: go on without.
	if db, err = tsdb.Open(d.dir, d.engineLog(), nil, d.options(opts), nil); err == nil || fatal(err) {
		return db, explain(err)
	}
	d.log.Error("the history cannot be repaired; starting an empty one", "dir", d.dir, "err", err)
	if err := setAside(d.dir, d.log); err != nil {
		return nil, err
	}
	db, err = tsdb.Open(d.dir, d.engineLog(), nil, d.options(opts), nil)
	return db, explain(err)
}

// engineLog leaves the engine's routine to debug level.
func (d *DB) engineLog() *slog.Logger {
	return slog.New(quiet{d.log.Handler()})
}

func (d *DB) options(opts Options) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0 // deletable decides
	o.BlocksToDelete = d.deletable
	o.MinBlockDuration = blockSpan.Milliseconds()
	o.MaxBlockDuration = maxBlockSpan.Milliseconds()
	o.WALSegmentSize = walSegment
	o.WALCompression = compression.Snappy
	o.OutOfOrderTimeWindow = (catchUp + lateness).Milliseconds() // of means; others have less
	o.StripeSize = 1 << 10                                       // thousands of series, not millions
	o.HeadChunksWriteQueueSize = 0
	o.BlockReloadInterval = opts.reload
	return o
}

// fatal tells errors that no repair mends.
func fatal(err error) bool {
	return locked(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) ||
		errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EMFILE) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EDQUOT)
}

func locked(err error) bool { return errors.Is(err, syscall.EWOULDBLOCK) }

func explain(err error) error {
	if err != nil && locked(err) {
		return ErrLocked
	}
	return err
}

// ServeHTTP serves the Prometheus HTTP API below /api/v1.
func (d *DB) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// Client returns a client that calls the API in process.
func (d *DB) Client() *history.Client {
	c, err := history.New("http://embedded", d.Transport())
	if err != nil {
		panic(err) // a constant URL parses
	}
	return c
}

// Close flushes and closes the database.
func (d *DB) Close() error {
	d.stop()
	done := make(chan struct{})
	go func() {
		d.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(sweepGrace): // the engine's Close breaks it off
	}
	err := errors.Join(d.engine.Close(), d.db.Close())
	<-done
	if err != nil {
		return fmt.Errorf("close history in %s: %w", d.dir, err)
	}
	return nil
}
