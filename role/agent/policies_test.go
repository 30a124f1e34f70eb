package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

func TestPolicyWithWrongHashIsRefused(t *testing.T) {
	l := newLab(t)
	bad := l.addPackage("LAB00001", "bad", tools)
	good := l.addPackage("LAB00002", "good", tools)
	l.digests[bad.ID] = cmg.Policy{Body: []byte("something else")}.SHA256()
	c := l.config(l.file("state"))
	a, err := l.pass(c)
	if !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), "SHA-256") || !strings.Contains(err.Error(), bad.ID) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.StateDir, "content", "bad")); !os.IsNotExist(err) {
		t.Errorf("the refused policy left something: %v", err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "good"), tools)
	checkReports(t, l, bad.ID, ccm.StateFailed)
	checkReports(t, l, good.ID, ccm.StateSucceeded)
	if s := a.report.now; s.PoliciesApplied != 1 || s.PoliciesFailed != 1 || len(s.LastErrors) == 0 {
		t.Errorf("status %+v", s)
	}

	// The same failure is not reported again; what is put right is obeyed.
	l.forget()
	if _, err = l.pass(c); err == nil || l.count(ccm.EndpointState) != 0 {
		t.Errorf("second pass: %v, %d state messages", err, l.count(ccm.EndpointState))
	}
	delete(l.digests, bad.ID)
	if _, err = l.pass(c); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "bad"), tools)
}

func TestFoldersThatAreRefused(t *testing.T) {
	outside := t.TempDir()
	for _, folder := range []string{"../x", "..", "", ".", "a/../../x", "a\\b", "C:/x", "nul", "a/.cmg-partial", filepath.Join(outside, "x")} {
		t.Run(folder, func(t *testing.T) {
			l := newLab(t)
			l.addPackage("LAB00001", folder, tools)
			_, err := l.pass(l.config(l.file("state")))
			if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrForbidden) {
				t.Errorf("got %v", err)
			}
			if l.count(ccm.EndpointLocation) != 0 {
				t.Error("content was asked for all the same")
			}
		})
	}
	l := newLab(t)
	l.addPackage("LAB00001", filepath.Join(outside, "x"), tools)
	c := l.config(l.file("state"))
	c.AllowAbsolute = true
	if _, err := l.pass(c); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(outside, "x"), tools)
}

// What is assigned later wins; a policy that was taken back is forgotten, so
// that the site can go back to an older version.
func TestVersionsInOneFolder(t *testing.T) {
	l := newLab(t)
	version := func(n int) (cmg.Policy, map[string]string) {
		files := map[string]string{"version.txt": strings.Repeat("v", n)}
		return l.addVersion("LAB00001", n, "tools", files), files
	}
	c := l.config(l.file("state"))
	there := filepath.Join(c.StateDir, "content", "tools")
	pass := func() *Agent {
		t.Helper()
		a, err := l.pass(c)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	wantStatus := func(a *Agent, version, policies int) {
		t.Helper()
		s := a.report.now
		if len(s.Packages) != 1 || s.Packages[0].Version != version || s.PoliciesApplied != policies || s.PoliciesFailed != 0 {
			t.Errorf("status %+v, want version %d and %d policies", s, version, policies)
		}
	}
	one, first := version(1)
	_, second := version(2)
	wantStatus(pass(), 2, 2)
	checkFiles(t, there, second)

	// An older version beside it, assigned later, is refused.
	older := l.addVersion("LAB00001", 1, "tools", first)
	a, err := l.pass(c)
	if !errors.Is(err, cmg.ErrConflict) || !strings.Contains(err.Error(), older.ID) {
		t.Fatalf("an older version over a newer one: %v", err)
	}
	checkFiles(t, there, second)
	checkReports(t, l, older.ID, ccm.StateFailed)
	if s := a.report.now; s.PoliciesFailed != 1 || len(s.Packages) != 1 || s.Packages[0].Version != 2 {
		t.Errorf("status %+v", s)
	}

	// The same in place of all others is obeyed.
	l.mu.Lock()
	l.policies = []cmg.Policy{older}
	l.mu.Unlock()
	a = pass()
	wantStatus(a, 1, 1)
	checkFiles(t, there, first)
	if a.state.Policies[one.ID] != nil {
		t.Error("a policy that was taken back is still known")
	}

	l.mu.Lock()
	l.policies = nil
	l.mu.Unlock()
	if a := pass(); a.report.now.PoliciesApplied != 0 || len(a.report.now.Packages) != 0 {
		t.Errorf("status %+v", a.report.now)
	}
}

// A secret policy is decrypted and obeyed as any other; one in a form that can
// be changed on its way, or that is another's, is not.
func TestSecretPolicy(t *testing.T) {
	l := newLab(t)
	p := l.addPackage("LAB00001", "secret", tools)
	for i := range l.policies {
		l.policies[i].Flags |= cmg.PolicySecret
	}
	l.sealOld = true
	c := l.config(l.file("state"))
	if _, err := l.pass(c); !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), "open envelope") {
		t.Fatalf("the older form: %v", err)
	}
	checkReports(t, l, p.ID, ccm.StateFailed)
	l.sealOld = false
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(c.StateDir, "content", "secret"), tools)
	if s := a.report.now; s.PoliciesApplied != 1 || s.PoliciesFailed != 0 {
		t.Errorf("status %+v", s)
	}
}
