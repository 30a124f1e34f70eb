package e2e

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
)

// TestOnce is the main job: one pass of a lab, judged by its own summary.
func TestOnce(t *testing.T) {
	stdout, stderr, code := cmg(t, "lab", "--once", "--json", "--port-base", strconv.Itoa(freeBase(t)))
	if code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, stdout, stderr)
	}
	var sum struct {
		OK                 bool             `json:"ok"`
		Seconds            float64          `json:"seconds"`
		Dir                string           `json:"dir"`
		AgentsRegistered   int              `json:"agents_registered"`
		PoliciesApplied    int              `json:"policies_applied"`
		BytesVerified      int64            `json:"bytes_verified"`
		RequestsForwarded  map[string]int64 `json:"requests_forwarded"`
		InboundConnections *int64           `json:"inbound_connections"`
	}
	if err := json.Unmarshal([]byte(stdout), &sum); err != nil {
		t.Fatalf("stdout is not one JSON object: %v\n%s", err, stdout)
	}
	t.Logf("a pass took %.1f s", sum.Seconds)
	if !sum.OK || sum.AgentsRegistered != 3 || sum.PoliciesApplied != 3 || sum.BytesVerified < 3*20<<20 {
		t.Errorf("got %+v", sum)
	}
	if len(sum.RequestsForwarded) != 2 || sum.RequestsForwarded["connection-point-1"] == 0 || sum.RequestsForwarded["connection-point-2"] == 0 {
		t.Errorf("the connection points forwarded %v", sum.RequestsForwarded)
	}
	if sum.InboundConnections == nil || *sum.InboundConnections != 0 {
		t.Errorf("connections into the inside: %v", sum.InboundConnections)
	}
	if _, err := os.Stat(sum.Dir); !os.IsNotExist(err) {
		t.Errorf("the throw-away folder %s is still there", sum.Dir)
	}
}
