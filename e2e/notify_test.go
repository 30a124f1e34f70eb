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

// notifiedAgent is what these stories read of an agent's status.
type notifiedAgent struct {
	Agent struct {
		Device       string `json:"device"`
		Passes       int    `json:"passes"`
		Notification struct {
			Listening bool `json:"listening"`
			Tasks     int  `json:"tasks"`
		} `json:"notification"`
	} `json:"agent"`
}

// patient has an agent look for policy once an hour: what comes sooner it was
// notified of.
func (l *lab) patient(name string) {
	l.t.Helper()
	file := filepath.Join(l.dir, "config", name+".yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	text := strings.Replace(string(b), `policy_interval: "30s"`, `policy_interval: "1h0m0s"`, 1)
	if text == string(b) {
		l.t.Fatalf("%s sets no policy_interval:\n%s", file, b)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.kill(name)
	l.again(name)
}

func (l *lab) listens(name string) error {
	var s notifiedAgent
	if err := l.status(name, &s); err != nil {
		return err
	}
	if s.Agent.Passes == 0 || !s.Agent.Notification.Listening {
		return fmt.Errorf("%s: %+v", name, s.Agent)
	}
	return nil
}

// deployTo deploys a small package to a folder and waits until the agents
// have it.
func (l *lab) deployTo(pack, folder string, agents ...string) time.Duration {
	l.t.Helper()
	must(l.t, "deploy", pack, "--to", folder, "--site", filepath.Join(l.dir, "site"))
	return l.until("a deployment to "+folder, func() error {
		for _, name := range agents {
			if _, err := os.Stat(filepath.Join(l.dir, "packages", name, folder, "small.txt")); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestNotified: a deployment takes effect at once though devices look for
// policy once an hour; whichever process on the way is killed, they can be
// reached again by themselves; and what is pushed while a device is away
// reaches it when it is back.
func TestNotified(t *testing.T) {
	l := startLab(t)
	agents := []string{"agent-1", "agent-2", "agent-3"}
	for _, a := range agents {
		l.patient(a)
	}
	for _, a := range agents {
		l.until(a+" listens", func() error { return l.listens(a) })
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "small.txt"), []byte("small\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	site := filepath.Join(l.dir, "site")
	pack := strings.Fields(must(t, "content", "add", folder, "--name", "Small", "--site", site))[0]
	t.Logf("a deployment took effect after %v", l.deployTo(pack, "first", agents...).Round(time.Millisecond))

	for i, name := range []string{"management-point-1", "connection-point-1", "connection-point-2", "gateway-1", "gateway-2"} {
		l.kill(name)
		l.again(name)
		took := l.deployTo(pack, fmt.Sprintf("after-%d", i), agents...)
		t.Logf("%s was killed: a deployment took effect after %v", name, took.Round(time.Millisecond))
	}

	var away notifiedAgent
	if err := l.status("agent-2", &away); err != nil {
		t.Fatal(err)
	}
	l.kill("agent-2")
	must(t, "device", "notify", away.Agent.Device, "--policy", "--site", site)
	l.again("agent-2")
	l.until("the push reaches the agent that was away", func() error {
		var s notifiedAgent
		if err := l.status("agent-2", &s); err != nil {
			return err
		}
		if s.Agent.Notification.Tasks == 0 {
			return fmt.Errorf("told %+v", s.Agent)
		}
		return nil
	})
	l.until("all are listed online", func() error {
		var devices []struct {
			ID     string `json:"id"`
			Online bool   `json:"online"`
		}
		if err := json.Unmarshal([]byte(must(t, "device", "list", "--json", "--site", site)), &devices); err != nil {
			return err
		}
		online := 0
		for _, d := range devices {
			if d.Online {
				online++
			}
		}
		if online != len(agents) {
			return fmt.Errorf("%+v", devices)
		}
		return nil
	})
	if _, _, code := cmg(t, "device", "notify", "--site", site); code == 0 {
		t.Error("nobody could be notified")
	}
}
