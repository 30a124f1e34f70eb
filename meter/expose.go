package meter

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Kind is what a family's values mean.
type Kind string

// The kinds of family.
const (
	Counter   Kind = "counter"   // only grows, from zero at the start
	Gauge     Kind = "gauge"     // goes up and down
	Durations Kind = "histogram" // of seconds
)

// A Family is one metric with all its labels' values.
type Family struct {
	Name   string
	Kind   Kind
	Help   string // one sentence
	Labels []string
}

// An Emit takes the values of one look at the metrics.
type Emit struct {
	descs map[*Family]*prometheus.Desc
	out   chan<- prometheus.Metric
}

// Value gives a family's value for the labels, in the family's order.
func (e *Emit) Value(f *Family, v float64, labels ...string) {
	kind := prometheus.CounterValue
	if f.Kind == Gauge {
		kind = prometheus.GaugeValue
	}
	e.out <- prometheus.MustNewConstMetric(e.descs[f], kind, v, labels...)
}

// Histogram gives a family's histogram for the labels.
func (e *Emit) Histogram(f *Family, h Histogram, labels ...string) {
	e.out <- prometheus.MustNewConstHistogram(e.descs[f], h.Count, h.Seconds, h.Upto, labels...)
}

// collector sums the shards when it is asked, so that the hot path knows
// nothing of Prometheus.
type collector struct {
	descs  map[*Family]*prometheus.Desc
	gather func(*Emit)
}

func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) { c.gather(&Emit{descs: c.descs, out: out}) }

// Handler serves the families in Prometheus's text format, and beside them
// what the Go runtime and the process tell. gather is called for each
// request, by one at a time.
func Handler(families []*Family, gather func(*Emit)) http.Handler {
	c := collector{descs: map[*Family]*prometheus.Desc{}, gather: gather}
	for _, f := range families {
		c.descs[f] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 1})
}

// Document writes a table of the families in Markdown.
func Document(families []*Family) string {
	var b strings.Builder
	b.WriteString("| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		labels := "–"
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Kind, labels, f.Help)
	}
	return b.String()
}
