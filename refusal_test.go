package cmg

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRuleOf(t *testing.T) {
	r, ok := RuleOf("CMGService_Not_Published")
	if !ok || !strings.Contains(r.Means, "prefix") || !strings.Contains(r.Remedy, "cmg route") {
		t.Errorf("got %+v, %v", r, ok)
	}
	if _, ok := RuleOf("CMGService_Never_Heard_Of"); ok {
		t.Error("an unknown code is explained")
	}
	all := Rules()
	if len(all) < 60 {
		t.Errorf("only %d codes are explained", len(all))
	}
	for code, r := range all {
		if r.Means == "" || r.Remedy == "" {
			t.Errorf("%s: %+v", code, r)
		}
	}
}

func TestRecord(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("x", 3600))
	refusal := Refuse(403, "CMGService_Not_Published", "nothing is there", errors.New("inner\ncause")).With("path", "/x", "empty", "")
	r := Record("id-1", "gateway/g", at, refusal, Fact{"from", strings.Repeat("y", 9000)})
	if r.Code != "CMGService_Not_Published" || r.Status != 403 || r.Why != "nothing is there" || r.Cause != "inner cause" || r.Time.Location() != time.UTC {
		t.Errorf("got %+v", r)
	}
	if len(r.Facts) != 2 || r.Facts[0] != (Fact{"path", "/x"}) || len(r.Facts[1].Value) > 600 {
		t.Errorf("facts %+v", r.Facts)
	}
	if f := Record("id-2", "gateway/g", at, errors.New("disk")); f.Status != 500 || f.Cause != "disk" || f.Code != "" {
		t.Errorf("a fault: %+v", f)
	}
	many := RefusalRecord{Facts: make([]Fact, 1000)}
	if n := len(many.Bounded().Facts); n > 100 {
		t.Errorf("%d facts are kept", n)
	}
}
