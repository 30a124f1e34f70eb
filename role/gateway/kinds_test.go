package gateway

import (
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
)

// Whoever copied a device token, or was handed a registration token, reaches
// no server by it but the management point, which wants more than that.
func TestTokenKinds(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	for _, c := range []struct {
		kind         auth.TokenKind
		route, point string // the code on a server's route, and on the management point's
	}{
		{auth.TokenSession, "", ""},
		{auth.TokenDevice, "CMGService_Invalid_Token_Wrong_Kind", ""},
		{auth.TokenRegistration, "CMGService_Invalid_Token_Wrong_Kind", ""},
	} {
		token := r.site.token(t, c.kind, 0, time.Hour)
		for path, want := range map[string]string{"/any/x": c.route, server + "/CCM_STS": c.point} {
			before := in.streams.Load()
			req := r.request("GET", path, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, _ := do(t, r.client(nil, false), req)
			if got := resp.Header.Get("CMG-Refusal"); got != want {
				t.Errorf("%s token at %s: %s %q, want %q", c.kind, path, resp.Status, got, want)
			}
			if went := in.streams.Load() > before; went != (want == "") {
				t.Errorf("%s token at %s: it went inward: %v", c.kind, path, went)
			}
		}
	}
}
