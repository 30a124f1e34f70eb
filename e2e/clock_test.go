package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClock moves the clock of a whole lab while it runs: tokens hold to the
// minute and no longer, a device token is renewed without a restart once a
// third of its life is over, and after its end for as long as its grace lasts.
func TestClock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	t.Setenv("CMG_TEST_CLOCK", file)
	if err := os.WriteFile(file, []byte("0s"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := startLab(t)
	site := filepath.Join(l.dir, "site")
	cli := func(args ...string) string { t.Helper(); return must(t, append(args, "--site", site)...) }
	advance := func(d time.Duration) {
		t.Helper()
		if err := os.WriteFile(file, []byte(d.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond) // processes look at the file every tenth of a second
	}
	lists := l.env["CMG_URL"] + l.env["CMG_MP_SERVER"] + "/SMS_MP/.sms_aut?MPLIST"
	client := l.client(false)
	want := func(what, token, code string) {
		t.Helper()
		l.until(what, func() error {
			if got, _ := ask(t, client, lists, token); got != code {
				return fmt.Errorf("%s, want %s", got, code)
			}
			return nil
		})
	}
	var devices []struct{ ID, Name string }
	if err := json.Unmarshal([]byte(cli("device", "list", "--json")), &devices); err != nil {
		t.Fatal(err)
	}
	id := map[string]string{}
	for _, d := range devices {
		id[d.Name] = d.ID
	}
	deviceTokens := func(name string) (n int) {
		var tokens []struct{ Device string }
		if err := json.Unmarshal([]byte(cli("token", "list", "--kind", "device", "--json")), &tokens); err != nil {
			t.Fatal(err)
		}
		for _, tok := range tokens {
			if tok.Device == id[name] {
				n++
			}
		}
		return n
	}
	const day = 24 * time.Hour
	session := strings.TrimSpace(cli("token", "session", id["agent-2"]))
	registration := strings.TrimSpace(cli("token", "new", "--lifetime", "24h"))

	advance(7*time.Hour + 59*time.Minute)
	want("a session token after 7 h 59 min", session, "200 OK")
	advance(8*time.Hour + time.Minute)
	want("a session token after 8 h 1 min", session, "CMGService_Invalid_Token_Expired")
	advance(23*time.Hour + 59*time.Minute)
	want("a registration token of 24 h after 23 h 59 min passes the gateway", registration, "CMGMP_Token_Kind")
	advance(24*time.Hour + time.Minute)
	want("a registration token of 24 h after 24 h 1 min", registration, "CMGService_Invalid_Token_Expired")

	l.kill("agent-3") // it is away for long
	before := deviceTokens("agent-2")
	advance(29 * day)
	l.kill("agent-2")
	l.again("agent-2")
	l.until("agent-2 makes a pass on day 29", func() error { return l.ready("agent-2") })
	if n := deviceTokens("agent-2"); n != before {
		t.Errorf("agent-2 has had %d device tokens on day 29, want %d", n, before)
	}
	advance(31 * day)
	took := l.until("agent-2 renews its device token, and is not started again for it", func() error {
		if n := deviceTokens("agent-2"); n != before+1 {
			return fmt.Errorf("it has had %d, want %d", n, before+1)
		}
		return nil
	})
	t.Logf("renewed at the next contact, %v later", took.Round(time.Second))

	advance(100 * day) // agent-3's token ended on day 90
	l.again("agent-3")
	l.until("agent-3 comes back after 100 days", func() error {
		var s struct {
			Agent struct {
				Device     string   `json:"device"`
				Passes     int      `json:"passes"`
				LastErrors []string `json:"last_errors"`
			} `json:"agent"`
		}
		if err := l.status("agent-3", &s); err != nil {
			return err
		}
		if s.Agent.Device != id["agent-3"] || s.Agent.Passes == 0 || len(s.Agent.LastErrors) > 0 {
			return fmt.Errorf("agent-3: %+v", s.Agent)
		}
		return nil
	})
	if n := deviceTokens("agent-3"); n == 0 {
		t.Error("agent-3 has no new device token")
	}
	log, err := os.ReadFile(filepath.Join(l.dir, "run", "agent-3.log"))
	if err != nil || !strings.Contains(string(log), "device token renewed") {
		t.Errorf("agent-3 did not renew its token but registered again (%v)", err)
	}

	l.kill("agent-3")
	advance((100 + 90 + 31) * day)
	l.again("agent-3")
	l.until("agent-3 is refused after its grace", func() error {
		b, err := os.ReadFile(filepath.Join(l.dir, "run", "agent-3.log"))
		if err == nil && !strings.Contains(string(b), "CMGService_Invalid_Token_Expired") {
			err = fmt.Errorf("not refused yet")
		}
		return err
	})
}
