package host

import "github.com/prometheus/client_golang/prometheus"

// metrics are the daemon's own.
type metrics struct {
	decisions      *prometheus.CounterVec
	applySeconds   *prometheus.HistogramVec
	readSeconds    prometheus.Histogram
	stepSeconds    prometheus.Histogram
	recorderErrors prometheus.Counter
	brokenPromises prometheus.Counter
	agentErrors    *prometheus.CounterVec
	shadowStarts   *prometheus.CounterVec
	answerSeconds  prometheus.Histogram
	onsets         *prometheus.CounterVec
	urgentSeconds  *prometheus.HistogramVec
}

var latencyBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// decisionBuckets are of what takes no I/O.
var decisionBuckets = []float64{.00001, .00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gnomon_host_decisions_total", Help: "Decisions of the broker.",
		}, []string{"kind", "resource"}),
		applySeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gnomon_host_apply_seconds", Help: "Time from an action to its confirmation by the hypervisor.",
			Buckets: latencyBuckets,
		}, []string{"resource", "path", "outcome"}),
		readSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gnomon_host_read_seconds", Help: "Time to read the counters of all VMs due.",
			Buckets: latencyBuckets,
		}),
		stepSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gnomon_host_step_seconds", Help: "Time that the broker took to decide what follows from one event.",
			Buckets: decisionBuckets,
		}),
		recorderErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gnomon_host_recorder_errors_total", Help: "Events that the flight recorder could not keep.",
		}),
		brokenPromises: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gnomon_host_broken_promises_total", Help: "Times that the ledger found a promise of its own broken: bugs.",
		}),
		agentErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gnomon_host_agent_disconnects_total", Help: "Agent connections that ended, by cause.",
		}, []string{"cause"}),
		shadowStarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gnomon_host_shadow_starts_total", Help: "Shadow VMs started, by outcome.",
		}, []string{"outcome"}),
		answerSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gnomon_host_proposal_seconds", Help: "Time from a usage event pushed to the agent's proposal for it.",
			Buckets: latencyBuckets,
		}),
		onsets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gnomon_host_onsets_total", Help: "Onsets of pressure told by the kernel, and whether they were heeded.",
		}, []string{"resource", "cause", "outcome"}),
		urgentSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gnomon_host_urgent_seconds", Help: "Time from an onset to its urgent sample at the broker.",
			Buckets: latencyBuckets,
		}, []string{"resource"}),
	}
	if reg != nil {
		reg.MustRegister(m.decisions, m.applySeconds, m.readSeconds, m.stepSeconds, m.recorderErrors, m.brokenPromises,
			m.agentErrors, m.shadowStarts, m.answerSeconds, m.onsets, m.urgentSeconds)
	}
	return m
}
