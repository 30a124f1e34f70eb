package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestKillInside kills every process one after the other and starts it
// again: devices, packages and tokens are as before, and the whole serves.
func TestKillInside(t *testing.T) {
	l := startLab(t)
	site := filepath.Join(l.dir, "site")
	state := func() string {
		return must(t, "device", "list", "--site", site, "--json") + must(t, "content", "list", "--site", site, "--json") + must(t, "token", "list", "--site", site, "--json")
	}
	before := withoutLastSeen(state())
	if n := strings.Count(before, "GUID:"); n < 3 {
		t.Fatalf("%d devices:\n%s", n, before)
	}
	for _, name := range []string{"management-point-1", "connection-point-1", "connection-point-2", "content-store-1", "gateway-1", "gateway-2", "agent-1", "agent-2"} {
		l.kill(name)
		l.again(name)
		l.until(name+" is ready again", func() error { return l.ready(name) })
	}
	for _, name := range []string{"gateway-1", "gateway-2", "connection-point-1", "connection-point-2"} {
		l.until(name+" is connected again", func() error { return l.ready(name) })
	}
	if after := withoutLastSeen(state()); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	req, err := http.NewRequest("GET", l.env["CMG_URL"]+l.env["CMG_MP_SERVER"]+"/SMS_MP/.sms_aut?MPLIST", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+l.env["CMG_TOKEN"])
	resp, err := l.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the session token from before gets %s", resp.Status)
	}
}

// withoutLastSeen takes the lines out that change with every contact.
func withoutLastSeen(s string) string {
	var kept []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "last_seen") && !strings.Contains(line, "last_used") && !strings.Contains(line, "updated") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
