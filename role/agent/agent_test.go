package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

var tools = map[string]string{"bin/tool": strings.Repeat("tool ", 50_000), "readme.txt": "read me\n", "empty": ""}

func checkFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v; want %d bytes", name, len(got), err, len(want))
		}
	}
}

func TestFullPassWithTokens(t *testing.T) {
	l := newLab(t)
	p := l.addPackage("LAB00001", "tools/one", tools)
	c := l.config(l.file("state"))
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "tools", "one"), tools)
	if l.devices[a.state.Device].NetBIOSName != "PC1" {
		t.Errorf("registered %+v", l.devices)
	}
	if got := l.bearers[:3]; got[0] != "registration" || got[1] != "device" || got[2] != "session" {
		t.Errorf("tokens shown: %v", l.bearers)
	}
	checkReports(t, l, p.ID, ccm.StateSucceeded)
	checkPrivate(t, c.StateDir)
	s := a.report.now
	if !s.Registered || s.Device != a.state.Device || s.Proof != cmg.ProofToken || s.PoliciesApplied != 1 || len(s.Packages) != 1 || s.ReportsWaiting != 0 || len(s.LastErrors) != 0 {
		t.Errorf("status %+v", s)
	}
	if i := s.Packages[0]; i.ID != "LAB00001" || i.Version != 1 || i.Files != 3 || !i.Verified || i.Bytes != int64(len(tools["bin/tool"])+len(tools["readme.txt"])) {
		t.Errorf("installed %+v", i)
	}

	// After a restart nothing is done twice but the greeting.
	device, session := a.state.Device, a.state.Session.Value
	l.forget()
	if a, err = l.pass(c); err != nil {
		t.Fatal(err)
	}
	if a.state.Device != device || a.state.Session.Value != session {
		t.Error("the restarted agent is another one")
	}
	for what, want := range map[string]int{ccm.EndpointRegistration: 0, "session": 0, ccm.EndpointPolicy: 1, "policy": 0, ccm.EndpointLocation: 0, ccm.EndpointState: 0, ccm.EndpointDiscovery: 1} {
		if got := l.count(what); got != want {
			t.Errorf("after the restart %s was asked %d times, want %d", what, got, want)
		}
	}
}

// checkReports wants one discovery record and one state message.
func checkReports(t *testing.T, l *lab, policyID string, state int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	discovered := false
	var states []ccm.StateMessage
	for _, r := range l.reports {
		discovered = discovered || r.Kind() == "Discovery" && len(r.Instances) > 0
		for _, s := range r.States {
			if s.TopicID == policyID {
				states = append(states, s)
			}
		}
	}
	if !discovered {
		t.Error("no discovery record")
	}
	if len(states) != 1 || states[0].StateID != state || states[0].TopicType != ccm.TopicContentDeployment {
		t.Errorf("state messages %+v", states)
	}
}

// checkPrivate wants the state readable by its owner only.
func checkPrivate(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return
	}
	for name, want := range map[string]os.FileMode{".": 0o700, stateFile: 0o600, identityFile: 0o600} {
		i, err := os.Stat(filepath.Join(dir, name))
		if err != nil || i.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, i.Mode(), err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 { // with the content folder
		t.Errorf("state folder holds %v, %v", left, err)
	}
}

func TestFullPassWithCertificate(t *testing.T) {
	l := newLab(t)
	l.addPackage("LAB00001", "tools", tools)
	issued, err := l.authority.Issue(auth.CertRequest{Name: "PC1", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	c := l.config(l.file("state"))
	c.RegistrationTokenFile = ""
	c.ClientCertificate, c.ClientKey = l.file("client.pem"), l.file("client.key")
	if err := issued.Save(c.ClientCertificate, c.ClientKey); err != nil {
		t.Fatal(err)
	}
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "tools"), tools)
	if a.report.now.Proof != cmg.ProofCertificate || len(l.bearers) != 1 || l.bearers[0] != "content" {
		t.Errorf("proof %s, tokens shown %v", a.report.now.Proof, l.bearers)
	}
}

func TestRunUntilToldToStop(t *testing.T) {
	l := newLab(t)
	l.addPackage("LAB00001", "tools", tools)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	c := l.config(l.file("state"))
	c.Once, c.Status, c.PolicyInterval = false, addr, 20*time.Millisecond
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s := awaitPasses(t, addr, 3)
	cancel()
	running.Wait()
	if !s.Registered || s.PoliciesApplied != 1 || len(s.Packages) != 1 {
		t.Errorf("status %+v", s)
	}
}

// awaitPasses asks for the status until it tells of n passes.
func awaitPasses(t *testing.T, addr string, n int) snapshot {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/status")
		if err != nil {
			continue // not listening yet
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ Agent snapshot }
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if v.Agent.Passes >= n {
			return v.Agent
		}
	}
	t.Fatalf("no %d passes within a minute", n)
	return snapshot{}
}

// Ctrl-C in the middle of a pass is not a failure of a policy, and a single
// pass says that it was stopped.
func TestStoppedInTheMiddle(t *testing.T) {
	l := newLab(t)
	l.addPackage("LAB00001", "tools", tools)
	ctx, cancel := context.WithCancel(t.Context())
	l.setRefuse(func(what string) error {
		if what == "manifest" {
			cancel()
			return cmg.ErrUnavailable
		}
		return nil
	})
	c := l.config(l.file("state"))
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stopped before the pass was done") {
		t.Fatalf("got %v", err)
	}
	if len(a.state.Policies) != 0 {
		t.Errorf("policies %v", a.state.Policies)
	}
	l.setRefuse(func(string) error { return nil })
	if _, err := l.pass(c); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "tools"), tools)
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c := Config{RegistrationToken: "hush"}
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(f, c); strings.Contains(s, "hush") {
			t.Errorf("%s prints %s", f, s)
		}
	}
}
