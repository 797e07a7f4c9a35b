package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// maxRequest bounds what a caller may send, in bytes.
const maxRequest = 4 << 20

// minCompressed is the least answer that is compressed, in bytes: of a smaller
// one that costs more than it saves.
const minCompressed = 4 << 10

// NewHTTPServer returns an HTTP server for Handler: HTTP/1.1 and HTTP/2, that
// notices within seconds when the other side of a stream is gone, and who is at
// the other side of a connection within the machine.
func NewHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		Protocols:         Protocols(),
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext:       withPeer,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second, WriteByteTimeout: 10 * time.Second},
	}
}

// Protocols returns what Handler is to be served by: HTTP/1.1 and HTTP/2.
func Protocols() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

func (s *Server) routes(extra map[string]Route) http.Handler {
	mux := http.NewServeMux()
	opts := []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest), connect.WithCompressMinBytes(minCompressed), connect.WithInterceptors(&counting{s.metrics}, authorizing{s})}
	// No web page of another origin may have a browser change anything.
	own := http.NewCrossOriginProtection()
	path, h := serverpbconnect.NewManagementServiceHandler(s, opts...)
	mux.Handle(path, own.Handler(h))
	path, h = serverpbconnect.NewHostLinkServiceHandler(s, opts...)
	mux.Handle(path, own.Handler(h))
	path, h = serverpbconnect.NewAccessServiceHandler(s, opts...)
	mux.Handle(path, own.Handler(h))
	path, h = serverpbconnect.NewJoinServiceHandler(s, opts...)
	mux.Handle(path, own.Handler(h))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	viewer := func(*http.Request) access.Rule { return access.Rule{Role: access.Viewer} }
	mux.Handle("GET /metrics", s.guarded(viewer, promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})))
	for pattern, r := range extra {
		mux.Handle(pattern, s.guarded(r.Rule, r.Handler))
	}
	return s.identify(mux)
}

// ready answers 200 while the store can be read and hosts are being informed.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	loaded := false
	s.mirror.read(func(v *view) { loaded = v != nil })
	_, err := s.store.Get(ctx, guardKey, clientv3.WithCountOnly())
	switch {
	case err != nil:
		http.Error(w, storeError(err).Error(), http.StatusServiceUnavailable)
	case !loaded:
		http.Error(w, "the state is not loaded yet", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

type metrics struct {
	registry  prometheus.Gatherer
	requests  *prometheus.CounterVec
	connected prometheus.Gauge
	sent      prometheus.Counter
	reports   prometheus.Counter
}

func newMetrics(s *Server, registry *prometheus.Registry, version string) *metrics {
	if registry == nil {
		registry = prometheus.NewRegistry()
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	m := &metrics{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gnomon_server_requests_total", Help: "Requests, by procedure and the code they ended with."}, []string{"procedure", "code"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gnomon_server_host_streams", Help: "Hosts connected to this server."}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gnomon_server_states_sent_total", Help: "Desired states sent to hosts."}),
		reports: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gnomon_server_reports_stored_total", Help: "Reports of hosts that differed and were stored."}),
	}
	revision := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gnomon_server_store_revision", Help: "Revision of the store that hosts are informed by; 0 before it is loaded."},
		func() (r float64) {
			s.mirror.read(func(v *view) {
				if v != nil {
					r = float64(v.revision)
				}
			})
			return r
		})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gnomon_server_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	registry.MustRegister(info, m.requests, m.connected, m.sent, m.reports, revision)
	return m
}

// counting counts requests by how they ended.
type counting struct{ m *metrics }

func (c *counting) count(procedure string, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	c.m.requests.WithLabelValues(procedure, code).Inc()
}

// WrapUnary implements connect.Interceptor.
func (c *counting) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		r, err := next(ctx, req)
		c.count(req.Spec().Procedure, err)
		return r, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (c *counting) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (c *counting) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		c.count(conn.Spec().Procedure, err)
		return err
	}
}
