package embedded

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/gnomon-vm/gnomon/history"
)

// served are the parts of the upstream API that make sense here. The others
// tell of scraping, alerting and administration, which do not exist.
var served = []string{
	"/query", "/query_range", "/format_query", "/parse_query",
	"/labels", "/label/", "/series", "/status/buildinfo", "/status/tsdb", "/write",
}

const prefix = "/api/v1"

// newHandler builds the HTTP API from the upstream handlers.
func newHandler(d *DB, opts Options) http.Handler {
	reg := opts.Registerer
	if reg == nil {
		reg = prometheus.NewRegistry() // the handlers need one
	}
	api := v1.NewAPI(
		d.engine, retained{d}, lenient{d.db, d.dropped, true}, nil,
		func(context.Context) v1.ScrapePoolsRetriever { return nil },
		func(context.Context) v1.TargetRetriever { return nil },
		func(context.Context) v1.AlertmanagerRetriever { return nil },
		func() config.Config { return config.DefaultConfig },
		nil, v1.GlobalURLOptions{},
		func(next http.HandlerFunc) http.HandlerFunc { return next },
		stats{d.db}, d.dir,
		false, false, 0, // no admin API, no search
		d.engineLog(),
		func(context.Context) v1.RulesRetriever { return nil },
		0, 0, 0, false, // no remote read
		regexp.MustCompile("^$"), // no other origins
		nil,
		&v1.PrometheusVersion{Version: upstreamVersion, Revision: opts.Version, GoVersion: runtime.Version()},
		nil, nil, prometheus.NewRegistry(), reg, nil,
		true, remote.MessageTypes{remote.WriteV1MessageType, remote.WriteV2MessageType},
		false, false, false,
		lookback, false, false,
		nil, nil, v1.OpenAPIOptions{},
		parser.NewParser(parser.Options{}),
		false, queryTimeout,
	)
	router := route.New()
	api.Register(router)
	upstream := http.StripPrefix(prefix, router)
	mux := http.NewServeMux()
	for _, path := range served {
		mux.Handle(prefix+path, upstream)
	}
	mux.HandleFunc("GET "+prefix+"/metadata", serveMetadata)
	return mux
}

// upstreamVersion is what the engine is compatible with; Grafana asks for it.
const upstreamVersion = "3.16.0"

// serveMetadata tells what the metrics of the schema mean, in the format of
// the Prometheus API. The filter "metric" is heeded.
func serveMetadata(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	data := map[string][]entry{}
	for _, m := range history.Catalog() {
		if only := r.FormValue("metric"); only == "" || only == m.Metric {
			data[m.Metric] = []entry{{"gauge", m.Help, m.Unit}}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data})
}

// stats is what /status/tsdb needs of the database.
type stats struct{ *tsdb.DB }

// Stats implements v1.TSDBAdminStats.
func (s stats) Stats(label string, limit int) (*tsdb.Stats, error) {
	return s.Head().Stats(label, limit), nil
}

// WALReplayStatus implements v1.TSDBAdminStats.
func (stats) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

// BlockMetas implements v1.TSDBAdminStats.
func (s stats) BlockMetas() ([]tsdb.BlockMeta, error) { return s.DB.BlockMetas(), nil }
