package managementpoint

import (
	"errors"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

func TestAssignmentsAreSignedByTheSite(t *testing.T) {
	l := newLab(t)
	l.addPolicy(policyID, 0)
	_, b, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?SITESIGNCERT"})
	if err != nil {
		t.Fatal(err)
	}
	site := must(ccm.SigningKey(must(ccm.ReadSiteSigningCertificate(string(b)))(t)))(t)
	var before string
	for range 2 { // each device gets the same
		a := l.registered()
		as := must(a.assignments(a.bySession()))(t)
		if len(as) != 1 {
			t.Fatalf("assignments %+v", as)
		}
		if err := as[0].Verify(site); err != nil {
			t.Error(err)
		}
		if before != "" && as[0].Signature != before {
			t.Error("it was signed once more")
		}
		before = as[0].Signature
		as[0].Flags ^= cmg.PolicySecret
		if err := as[0].Verify(site); !errors.Is(err, cmg.ErrUnauthenticated) {
			t.Errorf("changed: %v", err)
		}
	}
}
