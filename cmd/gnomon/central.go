package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/embedded"
	"github.com/gnomon-vm/gnomon/server"
	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// centralFlags are those of the central parts: server and history.
type centralFlags struct {
	listen  string
	dataDir string
	socket  string
	tls     bool
	open    bool
	names   []string
	etcd    etcdFlags
	history string
	sweep   bool
	people  peopleFlags
}

// secure tells whether the API is served with TLS: wherever other machines can
// reach it, unless that was waived.
func (f *centralFlags) secure() bool {
	host, _, err := net.SplitHostPort(f.listen)
	ip := net.ParseIP(host)
	local := err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
	return f.tls || !local && !f.open
}

func addCentralFlags(cmd *cobra.Command) *centralFlags {
	f := &centralFlags{}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:7070", "address of the management API and the history")
	fl.StringVar(&f.dataDir, "data-dir", defaultDataDir, "folder of the embedded etcd, the time-series database and the fleet's key")
	fl.StringVar(&f.socket, "server-socket", "", "Unix socket of the management API (default DATA-DIR/server.sock)")
	fl.BoolVar(&f.tls, "tls", false, "serve TLS on a loopback address too")
	fl.BoolVar(&f.open, "insecure", false, "serve without TLS, and let everyone who reaches the address do everything")
	fl.StringSliceVar(&f.names, "tls-name", nil, "further names or addresses for the server's certificate, for other programs than gnomon")
	f.etcd.add(fl)
	f.people.add(fl)
	fl.StringVar(&f.history, "history-url", "", "an existing Prometheus-compatible database instead of the embedded one")
	fl.BoolVar(&f.sweep, "history-sweep", false, "have that database delete gnomon's values by historyRetentionPeriod, as far as it can: Prometheus with --web.enable-admin-api, VictoriaMetrics")
	return f
}

// central is the running management server with its history.
type central struct {
	server     *server.Server
	listener   net.Listener
	socket     net.Listener
	secure     bool
	db         *embedded.DB // nil with an external history
	history    *history.Client
	sweeper    *history.Sweeper // of an external history; nil without --history-sweep
	historyURL string
	registry   *prometheus.Registry
	log        *slog.Logger

	// Only the server's calls touch these.
	retention server.Retention // as last told
	warned    bool             // that it cannot be applied
}

// listenCentral checks the flags and listens for the API. It creates nothing.
func listenCentral(f *centralFlags) (net.Listener, error) {
	if f.sweep && f.history == "" {
		return nil, usagef("--history-sweep: want --history-url with it: the embedded database needs no flag")
	}
	if f.tls && f.open {
		return nil, usagef("--tls and --insecure: want one of them, not both")
	}
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return nil, usagef("--listen %q: want ADDRESS:PORT, such as 127.0.0.1:7070", f.listen)
	}
	if f.socket == "" {
		f.socket = filepath.Join(f.dataDir, serverSocket)
	}
	if err := f.etcd.apply(&server.Options{}, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	if _, err := f.people.provider(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: free the address, or choose another with --listen", f.listen, err)
	}
	return l, nil
}

// openCentral opens the state and the history, to be served on the listener,
// which is closed with them. What it cannot open it reports before it has
// changed anything.
func openCentral(f *centralFlags, listener net.Listener, log *slog.Logger) (_ *central, err error) {
	c := &central{log: log, listener: listener, secure: f.secure(), registry: prometheus.NewRegistry(), historyURL: f.history}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	routes := map[string]server.Route{}
	if f.history != "" {
		if c.history, err = history.New(f.history, nil); err != nil {
			return nil, usageError{fmt.Errorf("--history-url: %w", err)}
		}
		if f.sweep {
			c.sweeper = history.NewSweeper(c.history, log)
		}
	} else {
		c.historyURL = c.url() + "/history"
		routes["/history/"] = server.Route{Handler: http.StripPrefix("/history", http.HandlerFunc(c.serveHistory)), Rule: historyRule}
	}
	// The server first: it refuses a data directory that cannot be used before
	// anything is created in it.
	options := server.Options{
		DataDir: filepath.Join(f.dataDir, "server"), Version: version,
		Routes: routes, Registry: c.registry, Log: log,
		OnRetention: c.retentionChanged, Open: f.open,
	}
	if c.secure {
		options.FleetKey, options.Names = filepath.Join(f.dataDir, "fleet.key"), certificateNames(f)
	}
	if options.People, err = f.people.provider(); err != nil {
		return nil, err
	}
	if err = f.etcd.apply(&options, log); err != nil {
		return nil, err
	}
	if c.server, err = server.New(options); err != nil {
		return nil, err
	}
	if f.history == "" {
		if c.db, err = embedded.Open(filepath.Join(f.dataDir, "history"), embedded.Options{
			Version: version, Logger: log, Registerer: c.registry,
		}); err != nil {
			return nil, err
		}
		c.history = c.db.Client()
	}
	if c.socket, err = listenSocket(f.socket); err != nil {
		return nil, err
	}
	return c, nil
}

// certificateNames are what others than gnomon's programs may call the server.
func certificateNames(f *centralFlags) []string {
	names := append([]string{"localhost", "127.0.0.1"}, f.names...)
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	if host, _, err := net.SplitHostPort(f.listen); err == nil && host != "" {
		names = append(names, host)
	}
	return names
}

// historyRule says who may use the history: hosts write it, and read what their
// shadows learn from.
func historyRule(r *http.Request) access.Rule {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/write") {
		return access.Rule{Role: access.Admin, Hosts: true}
	}
	return access.Rule{Role: access.Viewer, Hosts: true}
}

// url is the address of the API.
func (c *central) url() string {
	if c.secure {
		return "https://" + c.listener.Addr().String()
	}
	return "http://" + c.listener.Addr().String()
}

// serveHistory serves the embedded database. It is called once all is open.
func (c *central) serveHistory(w http.ResponseWriter, r *http.Request) { c.db.ServeHTTP(w, r) }

// retentionChanged has the history keep what is to be kept.
func (c *central) retentionChanged(r server.Retention) {
	last := c.retention
	c.retention = r
	if c.sweeper != nil {
		c.sweeper.SetRetention(history.Retention(r))
		return
	}
	if c.db == nil {
		set := r.Default != config.Defaults().HistoryRetentionPeriod || len(r.ByAccount)+len(r.ByHost)+len(r.ByVM) > 0
		if set && !c.warned {
			c.warned = true
			c.log.Warn("historyRetentionPeriod has no effect: the history is an external database, which keeps values as long as its own settings say; --history-sweep has it delete older ones", "history", c.historyURL)
		}
		return
	}
	if err := c.db.SetRetention(history.Retention(r)); err != nil {
		c.log.Warn("history retention not changed", "err", err)
		return
	}
	level := slog.LevelInfo
	if r.Default == last.Default && maps.Equal(r.ByAccount, last.ByAccount) && maps.Equal(r.ByHost, last.ByHost) {
		level = slog.LevelDebug // VMs come and go
	}
	c.log.Log(context.Background(), level, "history retention", "default", config.FormatDuration(r.Default),
		"accounts", len(r.ByAccount), "hosts", len(r.ByHost), "vms", len(r.ByVM))
}

// shutdownTimeout bounds the wait for requests under way.
const shutdownTimeout = 2 * time.Second

// run serves until ctx ends.
func (c *central) run(ctx context.Context) error {
	srv := server.NewHTTPServer(c.server.Handler())
	srv.TLSConfig = c.server.TLS()
	srv.ErrorLog = slog.NewLogLogger(c.log.Handler(), slog.LevelDebug) // such as connections of no client of ours
	failed := make(chan error, 3)
	go func() {
		if c.secure {
			failed <- srv.ServeTLS(c.listener, "", "")
		} else {
			failed <- srv.Serve(c.listener)
		}
	}()
	go func() { failed <- srv.Serve(c.socket) }()
	if c.sweeper != nil {
		go c.sweeper.Run(ctx)
	}
	go func() { failed <- c.server.Run(ctx) }()
	if a, ok := c.listener.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && !c.secure {
		c.log.Warn("everyone who can reach the API may do everything: let only your hosts and operators reach it", "listen", a)
	}
	c.log.Info("server runs", "api", c.url(), "socket", c.socket.Addr(), "history", c.historyURL)
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close()
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *central) close() {
	if c.server != nil {
		c.server.Close()
	}
	if c.db != nil {
		if err := c.db.Close(); err != nil {
			c.log.Warn("history not closed", "err", err)
		}
	}
	for _, l := range []net.Listener{c.listener, c.socket} {
		if l != nil {
			l.Close()
		}
	}
}
