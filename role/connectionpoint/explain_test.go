package connectionpoint

import (
	"testing"
	"time"

	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// A site that holds its answer back is asked again at once; one that does not
// is asked as often as the configuration says, and sooner while it fails.
func TestPause(t *testing.T) {
	m := &maps{p: &Point{cfg: Config{MapEvery: 5 * time.Second}}}
	for _, test := range []struct {
		name            string
		waited, failing bool
		took            time.Duration
		least, most     time.Duration
	}{
		{"it waited", true, false, 10 * time.Second, 0, 0},
		{"it answered at once with a change", true, false, 0, 100 * time.Millisecond, 100 * time.Millisecond},
		{"it does not wait", false, false, 0, 4 * time.Second, 6 * time.Second},
		{"it fails", false, true, 0, 1600 * time.Millisecond, 2400 * time.Millisecond},
	} {
		for range 50 {
			if got := m.pause(test.waited, test.failing, test.took); got < test.least || got > test.most+time.Nanosecond {
				t.Errorf("%s: %v, want %v to %v", test.name, got, test.least, test.most)
			}
		}
	}
}

// What servers refuse, and what they could not be asked, is remembered under
// the id that the gateway gave; what went well is not.
func TestRelayRemembers(t *testing.T) {
	p := &Point{cfg: Config{Name: "cp-1", Now: time.Now}, refusals: web.NewRefusalRing(true)}
	r := &relay{p: p, id: "r-1"}
	r.status = 200
	r.remember(nil)
	if got := p.refusals.Find("", 10); len(got) != 0 {
		t.Fatalf("a request that went well: %+v", got)
	}
	r.status = 403
	r.res.Reason = []byte("CMGConnector_Forbidden")
	r.res.Add(web.RefusalHeader, []byte("CMGMP_Token_Kind"))
	r.remember(nil)
	r.id, r.status, r.res = "r-2", 0, h1.Response{}
	r.remember(errMoreBody)
	r.id = "" // a report
	r.remember(errMoreBody)
	got := p.refusals.Find("", 10)
	if len(got) != 2 || got[1].Code != "CMGConnector_Forbidden" || got[1].Hop != "connection-point/cp-1" || got[1].Facts[0].Value != "CMGMP_Token_Kind" {
		t.Errorf("a server's refusal: %+v", got)
	}
	if got[0].Code != "CMGConnector_Unreachable" || got[0].Cause != errMoreBody.Error() {
		t.Errorf("a failure: %+v", got[0])
	}
}
