package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBudgetSurvivesKill uses a gateway's outbound budget up, kills the
// gateway as a power cut would, and finds it refusing when it is back. On the
// way it looks a request up in the logs of both ends.
func TestBudgetSurvivesKill(t *testing.T) {
	const bytes = 200_000
	l := startLab(t)
	both := []string{"gateway-1", "gateway-2"}
	t.Setenv("CMG_GATEWAY_BUDGET_BYTES", fmt.Sprint(bytes))
	t.Setenv("CMG_GATEWAY_BUDGET_STOP", "true")
	t.Setenv("CMG_GATEWAY_ACCESS_LOG_RATE", "1")
	t.Setenv("CMG_CONNECTION_POINT_ACCESS_LOG_RATE", "1")
	t.Setenv("CMG_CONNECTION_POINT_REPORT_EVERY", "1s")
	for _, name := range append(both, "connection-point-1", "connection-point-2") {
		l.kill(name)
		l.again(name)
		l.until(name+" is back", func() error { return l.ready(name) })
	}
	c := l.client(true)
	get := func() (*http.Response, error) {
		resp, err := c.Get(l.env["CMG_URL"] + l.env["CMG_MP_MUTUAL"] + "/SMS_MP/.sms_aut?MPLIST")
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp, err
	}
	first, err := get()
	if err != nil || first.StatusCode != 200 {
		t.Fatal(first, err)
	}
	id := first.Header.Get("CMG-Request-Id")
	for _, role := range []string{"gateway", "connection-point"} {
		l.until(role+" logs the request", func() error { return l.logged(role, `"`+id+`"`, "endpoint") })
	}

	type status struct {
		Budget struct {
			Used     int64  `json:"used"`
			State    string `json:"state"`
			Refusing bool   `json:"refusing"`
		} `json:"budget"`
	}
	stopped := func(name string) (s status, err error) {
		if err = l.status(name, &s); err == nil && !s.Budget.Refusing {
			err = fmt.Errorf("%s: %+v", name, s.Budget)
		}
		return s, err
	}
	l.until("both gateways refuse", func() error {
		for range 50 {
			resp, err := get()
			if err != nil {
				return err
			}
			if resp.StatusCode == 503 && resp.Header.Get("CMG-Refusal") != "CMGService_Budget_Exhausted" {
				return fmt.Errorf("refused for another reason: %s", resp.Header.Get("CMG-Refusal"))
			}
		}
		c.CloseIdleConnections() // the kernel then chooses another instance
		for _, name := range both {
			if _, err := stopped(name); err != nil {
				return err
			}
		}
		return nil
	})
	for _, name := range both {
		l.kill(name)
		l.again(name)
	}
	for _, name := range both {
		l.until(name+" is back", func() error { return l.ready(name) })
		s, err := stopped(name)
		if err != nil || s.Budget.Used < bytes || s.Budget.Used > bytes+4<<20 {
			t.Errorf("after the restart: %+v, %v", s.Budget, err)
		}
	}
	for range 5 {
		c.CloseIdleConnections()
		if resp, err := get(); err != nil || resp.StatusCode != 503 || resp.Header.Get("CMG-Refusal") != "CMGService_Budget_Exhausted" {
			t.Errorf("after the restart: %v, %v", resp, err)
		}
	}
	l.traffic()
}

// logged says whether a line of a role's logs holds all of the words.
func (l *lab) logged(role string, words ...string) error {
	files, _ := filepath.Glob(filepath.Join(l.dir, "run", role+"-*.log"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
	lines:
		for line := range strings.Lines(string(b)) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			return nil
		}
	}
	return fmt.Errorf("no line in %q holds %q", files, words)
}

// traffic wants a connection point to have reported what passed.
func (l *lab) traffic() {
	l.t.Helper()
	l.until("the traffic is reported", func() error {
		var seen int64
		for _, name := range []string{"connection-point-1", "connection-point-2"} {
			var s struct {
				Traffic []struct {
					EndPoints []struct {
						Name                             string
						TotalRequests, TotalRequestBytes int64
					}
				} `json:"traffic"`
			}
			if l.pids()[name] == 0 {
				continue
			}
			if err := l.status(name, &s); err != nil {
				return err
			}
			for _, r := range s.Traffic {
				for _, e := range r.EndPoints {
					if e.Name == "SMS_MP" && e.TotalRequestBytes > 50*e.TotalRequests {
						seen += e.TotalRequests
					}
				}
			}
		}
		if seen < 10 {
			return fmt.Errorf("%d requests of SMS_MP are reported", seen)
		}
		return l.logged("connection-point", "ProxyTrafficStateDetails", "SMS_MP")
	})
}
