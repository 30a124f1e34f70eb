package gateway

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// TestKeptProof shows what a connection's earlier proof by token does not
// stand for: another token, a time behind its end, a publication that blocks
// it, another route.
func TestKeptProof(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			told := make(chan string, 1)
			r, in := start(t, func(q *request) {
				told <- string(q.head.Get(h1.Caller))
				q.answer(200, nil)
			}, func(g *Gateway) {
				g.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			})
			client := r.client(nil, h2)
			ask := func(path, token string) (code, caller string) {
				t.Helper()
				q := r.request("GET", path, nil)
				q.Header.Set("Authorization", "Bearer "+token)
				resp, _ := do(t, client, q)
				if resp.StatusCode != 200 {
					return resp.Header.Get(web.RefusalHeader), ""
				}
				return "", <-told
			}
			good, other := r.site.session(t), r.site.token(t, auth.TokenSession, 0, 2*time.Hour)
			_, first := ask("/any/x", good)
			if code, again := ask("/any/x", good); code != "" || again != first {
				t.Errorf("again: %q, the caller changed: %v", code, again != first)
			}
			if code, second := ask("/any/x", other); code != "" || second == first {
				t.Errorf("another token: %q, the caller is still the first's: %v", code, second == first)
			}
			if code, back := ask("/any/x", good); code != "" || back != first {
				t.Errorf("the first again: %q, it is another caller: %v", code, back != first)
			}
			if code, _ := ask("/any/x", good+"x"); code != "CMGService_Invalid_Token" {
				t.Errorf("a token with a letter more: %q", code)
			}
			ask("/any/x", good)
			if code, _ := ask(mutual+"/SMS_MP/.sms_aut?MPLIST", good); code != "CMGService_Client_Certificate_Required" {
				t.Errorf("a route that takes no token: %q", code)
			}
			ask("/any/x", good)
			ahead.Store(int64(4 * time.Minute)) // less is left of the header than it is good for
			if code, later := ask("/any/x", good); code != "" || later == first {
				t.Errorf("four minutes later: %q, the same header: %v", code, later == first)
			}
			ahead.Store(int64(61 * time.Minute))
			if code, _ := ask("/any/x", good); code != "CMGService_Invalid_Token_Expired" {
				t.Errorf("behind its end: %q", code)
			}
			ahead.Store(0)
			if code, _ := ask("/any/x", good); code != "" {
				t.Errorf("the clock went back: %q", code)
			}
			p := r.site.content(2)
			p.Blocks.Devices = []cmg.DeviceID{deviceID}
			if problem := in.publish(2, []byte(must[string](t)(auth.SignPublication(r.site.signer, p)))); problem != "" {
				t.Fatal(problem)
			}
			if code, _ := ask("/any/x", good); code != "CMGService_Blocked_Device" {
				t.Errorf("blocked: %q", code)
			}
		})
	}
}
