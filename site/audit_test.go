package site

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

func TestAudit(t *testing.T) {
	s, now := open(t)
	ctx := By(t.Context(), "anna@site cmg token new")
	if err := s.RecordToken(ctx, Token{ID: "reg-1", Kind: "registration", Note: "line\nbreak", NotBefore: *now, Expires: now.Add(time.Hour), MaxUses: 3, Sources: []string{"192.0.2.0/24"}}); err != nil {
		t.Fatal(err)
	}
	s.Actor = "cmg://LAB/management-point/mp1"
	if _, err := s.Register(t.Context(), cmg.Device{Name: "PC1", Certificate: certificate(t, "PC1", false).Raw, Approval: cmg.Approved, Proof: cmg.ProofToken}, "reg-1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Block(ctx, BlockToken, "none", ""); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatal(err)
	}
	entries, err := s.Audit(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Actor+" "+e.Verb+" "+e.Object)
	}
	// What failed is not in it.
	if len(got) != 3 || got[0] != " site.create LAB" || got[1] != "anna@site cmg token new token.issue reg-1" || !strings.HasPrefix(got[2], "cmg://LAB/management-point/mp1 device.register GUID:") {
		t.Errorf("entries:\n%s", strings.Join(got, "\n"))
	}
	if d := entries[1].Detail; !strings.Contains(d, "max_uses=3") || !strings.Contains(d, "from=192.0.2.0/24") || strings.Contains(d, "\n") {
		t.Errorf("detail %q", d)
	}
	if n, err := s.VerifyAudit(t.Context()); n != 3 || err != nil {
		t.Errorf("verify: %d, %v", n, err)
	}
	if last, err := s.Audit(t.Context(), 2); err != nil || len(last) != 2 || last[1].Seq != 3 {
		t.Errorf("the last two: %+v, %v", last, err)
	}
}

// Whatever is done to the log behind the program's back is found, and where.
func TestAuditTampered(t *testing.T) {
	for name, test := range map[string]struct {
		sql  string
		head bool // is needed to find it
		says string
	}{
		"nothing":                     {"", false, ""},
		"a word changed":              {`UPDATE audit SET actor = 'nobody' WHERE seq = 4`, false, "entry 4 "},
		"a time changed":              {`UPDATE audit SET made = made + 1 WHERE seq = 2`, false, "entry 2 "},
		"a hash changed":              {`UPDATE audit SET hash = '00' WHERE seq = 3`, false, "entry 3 "},
		"a row taken out":             {`DELETE FROM audit WHERE seq = 3`, false, "entry 3 is missing"},
		"the first taken out":         {`DELETE FROM audit WHERE seq = 1`, false, "entry 1 is missing"},
		"the end cut off":             {`DELETE FROM audit WHERE seq > 4`, false, "ends at entry 4"},
		"all of it":                   {`DELETE FROM audit`, false, "ends at entry 0"},
		"two changed places":          {`UPDATE audit SET seq = CASE seq WHEN 2 THEN 1002 ELSE 1003 END WHERE seq IN (2, 3); UPDATE audit SET seq = 1005 - seq WHERE seq > 1000`, false, "entry 2 "},
		"a row put in":                {`UPDATE audit SET seq = seq + 1000 WHERE seq > 2; UPDATE audit SET seq = seq - 999 WHERE seq > 1000; INSERT INTO audit SELECT 3, made, actor, verb, object, detail, hash FROM audit WHERE seq = 2`, false, "entry 3 "},
		"the end and the site's word": {`DELETE FROM audit WHERE seq > 4; UPDATE site SET audit_seq = 4, audit_hash = (SELECT hash FROM audit WHERE seq = 4)`, true, "there were 6"},
	} {
		t.Run(name, func(t *testing.T) {
			s, now := open(t)
			for _, host := range []string{"a", "b", "c", "d", "e"} {
				*now = now.Add(time.Minute)
				if err := s.AddGateway(t.Context(), cmg.GatewayService{Host: host, Port: 443}); err != nil {
					t.Fatal(err)
				}
			}
			head, err := s.AuditHead(t.Context())
			if err != nil || head.Seq != 6 || head.Site != "LAB" {
				t.Fatalf("head %+v, %v", head, err)
			}
			if _, err := s.write.Exec(test.sql); err != nil {
				t.Fatal(err)
			}
			if _, err := s.VerifyAudit(t.Context()); test.head != (err == nil) && test.says != "" {
				t.Errorf("without the head: %v", err)
			}
			_, err = s.VerifyAudit(t.Context(), head)
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q", err, test.says)
			}
		})
	}
}

// A log that was computed anew from some entry on does not fit a head that
// was kept before.
func TestAuditRewritten(t *testing.T) {
	s, _ := open(t)
	add := func(host string) {
		t.Helper()
		if err := s.AddGateway(t.Context(), cmg.GatewayService{Host: host, Port: 443}); err != nil {
			t.Fatal(err)
		}
	}
	add("honest")
	head, err := s.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(`DELETE FROM audit WHERE seq = 2; UPDATE site SET audit_seq = 1, audit_hash = (SELECT hash FROM audit WHERE seq = 1)`); err != nil {
		t.Fatal(err)
	}
	add("forged")
	if n, err := s.VerifyAudit(t.Context()); n != 2 || err != nil {
		t.Fatalf("by itself: %d, %v", n, err)
	}
	if _, err := s.VerifyAudit(t.Context(), head); !errors.Is(err, ErrTampered) {
		t.Errorf("with the head: %v", err)
	}
}

// What a device says of itself can neither pass for another field of its
// entry, nor move a terminal's cursor, nor turn a line round.
func TestAuditOfStrangeNames(t *testing.T) {
	s, _ := open(t)
	name := "PC1 proof=certificate\u009b2J\u202e\" approval=approved"
	if _, err := s.Register(t.Context(), cmg.Device{Name: name, Certificate: certificate(t, "PC1", false).Raw, Approval: cmg.Pending, Proof: cmg.ProofToken}, ""); err != nil {
		t.Fatal(err)
	}
	es, err := s.Audit(t.Context(), 1)
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	const want = `name="PC1 proof=certificate\u009b2J\u202e\" approval=approved" proof=token approval=pending key=`
	if !strings.HasPrefix(es[0].Detail, want) {
		t.Errorf("%q, want it to begin with %q", es[0].Detail, want)
	}
	if got := plain("a\u009bb\u202ec\x1bd"); got != "a b c d" {
		t.Errorf("%q", got)
	}
}

// unaudited are the methods that write and leave no entry: what devices say
// of themselves, what only counts, what is fetched or renewed every few hours,
// and what goes when its time is over.
var unaudited = []string{"AddDiscovery", "AddReport", "AddRefusals", "AddUpload", "FollowRevocation", "ForgetRevocation", "NextPackageID", "NotePresence", "PrunePushes", "PruneTokens", "PutRevocation",
	"RefreshRevocation", "RefreshTenants", "RemoveUpload", "TicketSecrets", "Touch", "UseProof"}

// TestEveryChangeIsAudited reads the package's own source: each method that
// writes has to reach tx.audit, or to be on the list above.
func TestEveryChangeIsAudited(t *testing.T) {
	calls, writes := map[string]map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			called := map[string]bool{}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					if s, ok := c.Fun.(*ast.SelectorExpr); ok {
						called[s.Sel.Name] = true
					}
				}
				return true
			})
			calls[fn.Name.Name] = called
			if fn.Recv != nil && fn.Name.IsExported() && (called["update"] || called["publish"]) {
				writes[fn.Name.Name] = true
			}
		}
	}
	var reaches func(f string, seen map[string]bool) bool
	reaches = func(f string, seen map[string]bool) bool {
		if f == "audit" {
			return true
		}
		if seen[f] {
			return false
		}
		seen[f] = true
		for g := range calls[f] {
			if g != "update" && g != "publish" && reaches(g, seen) {
				return true
			}
		}
		return false
	}
	if len(writes) < 15 {
		t.Fatalf("%d methods write: this test does not look at the source", len(writes))
	}
	for f := range writes {
		if reaches(f, map[string]bool{}) == slices.Contains(unaudited, f) {
			t.Errorf("%s writes; it is audited: %v, on the list of those that are not: %v", f, reaches(f, map[string]bool{}), slices.Contains(unaudited, f))
		}
	}
}
