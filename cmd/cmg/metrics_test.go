package main

import (
	"os"
	"testing"

	"github.com/opencmg/cmg/meter"
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/role/gateway"
)

// TestMetricsDocument holds docs/metrics.md against the code. With
// CMG_UPDATE=1 it writes the document.
func TestMetricsDocument(t *testing.T) {
	const file = "../../docs/metrics.md"
	want := `# Metrics

A gateway and a connection point serve these at ` + "`/metrics`" + ` of their ` + "`status`" + ` listener, in Prometheus's text format, beside ` + "`go_…` and `process_…`" + ` of the Go runtime and the process. Keep that listener on loopback: whoever reaches it may read it. This file is made from the code: ` + "`CMG_UPDATE=1 go test -run MetricsDocument ./cmd/cmg`" + `.

Counters begin at zero with each start of the process. Traffic by device is not among them, for a metric with a label of which there are thousands is of no use: it stands under ` + "`callers`" + ` of the gateway's ` + "`/status`" + `.

## Gateway

Bytes are those that pass on the client's connection above TLS. A head of HTTP/2 counts as long as the same head is as text. ` + "`proof`" + ` is how the caller was proven (` + "`none`, `certificate`, `token`" + `), ` + "`class`" + ` the answer's status (` + "`2xx`" + ` …; ` + "`none`" + `: no answer was begun), ` + "`connection_point`" + ` empty where the gateway answered itself. The endpoints ` + "`(none)`, `(manifest)` and `(other)`" + ` are requests without a route, content manifests, and routes beyond the first 1,024.

` + meter.Document(gateway.Metrics) + `
## Connection point

Bytes are those that pass on the connection to the target above TLS.

` + meter.Document(connectionpoint.Metrics)
	if os.Getenv("CMG_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/metrics.md is not what the code says: CMG_UPDATE=1 go test -run MetricsDocument ./cmd/cmg")
	}
}
