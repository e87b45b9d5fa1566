package node

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd"
)

// workerCollector shows a worker's Stats as metrics.
type workerCollector struct {
	worker *workerd.Worker

	registered, refused, sessions, models, hostBytes, results, direct *prometheus.Desc
	queued, freePages, pages, resident                                *prometheus.Desc
}

// registerWorkerMetrics adds a worker's figures to a registry.
func registerWorkerMetrics(r prometheus.Registerer, w *workerd.Worker) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("orrery_worker_"+name, help, labels, nil)
	}
	r.MustRegister(&workerCollector{
		worker:     w,
		registered: desc("registered", "1 when a leader has committed the registration of this incarnation."),
		refused:    desc("refused", "1 when the leader doesn't want this worker; its log says why."),
		sessions:   desc("sessions", "Open sessions, those of succeeded leaders included."),
		models:     desc("models", "Models in host memory."),
		hostBytes:  desc("host_bytes", "Host memory that models take."),
		results:    desc("results_total", "Answered actions, by code.", "code"),
		direct:     desc("direct_total", "Answered requests that came without a leader, by code.", "code"),
		queued:     desc("queued_actions", "Inference actions that wait or run.", "device", "kind"),
		freePages:  desc("free_pages", "Free pages of the weights cache.", "device", "kind"),
		pages:      desc("pages", "Pages of the weights cache.", "device", "kind"),
		resident:   desc("resident_models", "Models whose weights are on the device.", "device", "kind"),
	})
}

// Describe implements prometheus.Collector.
func (c *workerCollector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *workerCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	flag := func(d *prometheus.Desc, set bool) {
		value := 0.0
		if set {
			value = 1
		}
		gauge(d, value)
	}
	s := c.worker.Stats()
	flag(c.registered, s.Registered)
	flag(c.refused, s.Refused != "")
	gauge(c.sessions, float64(s.Sessions))
	gauge(c.models, float64(s.Models))
	gauge(c.hostBytes, float64(s.HostUsedBytes))
	for desc, counts := range map[*prometheus.Desc]map[sessionpb.ResultCode]uint64{c.results: s.Results, c.direct: s.Direct} {
		for code, n := range counts {
			name := strings.ToLower(strings.TrimPrefix(code.String(), "RESULT_CODE_"))
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), name)
		}
	}
	for i, d := range s.Devices {
		device := strconv.Itoa(i)
		gauge(c.queued, float64(d.Queued), device, d.Kind)
		gauge(c.freePages, float64(d.FreePages), device, d.Kind)
		gauge(c.pages, float64(d.Pages), device, d.Kind)
		gauge(c.resident, float64(d.Resident), device, d.Kind)
	}
}
