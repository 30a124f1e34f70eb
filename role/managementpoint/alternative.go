package managementpoint

import (
	"context"
	"net/http"

	"github.com/opencmg/cmg"
)

// Compatibility lets in what the field's programs do and what we would not do
// of our own accord. Every switch is off unless it is set.
type Compatibility struct {
	// A device that nothing proves may register, from inside; it then waits for
	// an administrator, whatever Config.Approval says.
	AnonymousRegistration bool `json:"anonymous_registration"`
	// Secret policies are encrypted with Triple DES, their keys by PKCS #1 v1.5,
	// unless the device asks for better.
	LegacyEncryption bool `json:"legacy_encryption"`
}

// alternate marks the context of a message that came by the endpoint for
// clients without a certificate.
type alternate struct{}

// alternateMessage answers /ccm_system_AltAuth/request (PROTOCOL 2.1). The
// field approves who registers here; we do not (PROTOCOL 11): a registration
// by this way waits for an administrator whatever proves the caller.
func (p *Point) alternateMessage(w http.ResponseWriter, r *http.Request) error {
	return p.message(w, r.WithContext(context.WithValue(r.Context(), alternate{}, true)))
}

func isAlternate(ctx context.Context) bool {
	alt, _ := ctx.Value(alternate{}).(bool)
	return alt
}

// windowsChallenge answers whatever comes to the endpoints for Windows logins
// as a server does that has not seen one yet: programs tell by it that the
// endpoint is there. No login is taken, so the challenge is all there is.
func (p *Point) windowsChallenge(w http.ResponseWriter, _ *http.Request) error {
	w.Header()["Www-Authenticate"] = []string{"Negotiate", "NTLM"}
	return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Windows_Login_Off", "Windows logins are not taken here: register with a token or a certificate", nil)
}
