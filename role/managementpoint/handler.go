package managementpoint

import (
	"errors"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/web"
)

// Handler serves every endpoint of the management point. Paths are compared
// without case, as the field's servers do (PROTOCOL 0).
func (p *Point) Handler() http.Handler {
	return web.Handler(p.cfg.Log, func(w http.ResponseWriter, r *http.Request) error {
		told, err := p.serve(w, r)
		if err != nil {
			p.count.refused(err)
			p.remember(told, err)
			bitsRefusal(w, r, err)
		}
		return err
	})
}

// An endpoint answers one path.
type endpoint struct {
	name    string
	methods []string // nil: any
	serve   func(*Point, http.ResponseWriter, *http.Request) error
}

var endpoints = map[string]endpoint{
	"/sms_mp/.sms_aut":                {"sms_aut", []string{http.MethodGet, http.MethodHead}, (*Point).lists},
	"/sms_mp/.sms_pol":                {"sms_pol", []string{http.MethodGet, http.MethodHead}, (*Point).policyBody},
	"/ccm_system/request":             {"ccm_system", []string{ccm.Method}, (*Point).message},
	"/ccm_system_tokenauth/request":   {"ccm_system_tokenauth", []string{ccm.Method}, (*Point).message},
	"/sms_mp_tokenauth/.sms_pol":      {"sms_pol", []string{http.MethodGet, http.MethodHead}, (*Point).policyBody},
	"/sms_mp_altauth/.sms_pol":        {"sms_pol", []string{http.MethodGet, http.MethodHead}, (*Point).policyBody},
	"/ccm_system_altauth/request":     {"ccm_system_altauth", []string{ccm.Method}, (*Point).alternateMessage},
	"/ccm_system_windowsauth":         {"windowsauth", nil, (*Point).windowsChallenge},
	"/ccm_system_windowsauth/":        {"windowsauth", nil, (*Point).windowsChallenge},
	"/ccm_system_windowsauth/request": {"windowsauth", nil, (*Point).windowsChallenge},
	"/sms_mp_windowsauth/.sms_pol":    {"windowsauth", nil, (*Point).windowsChallenge},
	"/ccm_sts":                        {"CCM_STS", []string{http.MethodPost}, (*Point).exchange},
	"/bgb/handler.ashx":               {notificationName, []string{http.MethodPost}, (*Point).notification},
	cmg.InsideRevoked:                 {"revoked", []string{http.MethodGet}, (*Point).revokedList},
	cmg.InsideCertificate:             {"certificate", []string{http.MethodPost}, (*Point).certificateStatus},
	cmg.InsideTenant:                  {"tenant", []string{http.MethodPost}, (*Point).tenantKeys},
	"/cmg/v1/map":                     {"map", []string{http.MethodGet, http.MethodHead}, (*Point).connectionMap},
	"/cmg/v1/tickets":                 {"tickets", []string{http.MethodGet}, (*Point).ticketSecrets},
	web.RefusalsPath:                  {"refusals", []string{http.MethodPost}, (*Point).takeRefusals},
}

// serve answers a request; it gives it back with what was learned of its
// caller.
func (p *Point) serve(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	e, ok := endpoints[strings.ToLower(r.URL.Path)]
	if !ok {
		e, ok = folder(r.URL.Path)
	}
	if !ok {
		p.count.request("unknown")
		return r, cmg.Refuse(http.StatusNotFound, "CMGMP_Path_Unknown", "the management point has no such path", nil)
	}
	p.count.request(e.name)
	allowed := e.methods == nil
	for _, m := range e.methods {
		allowed = allowed || m == r.Method
	}
	if !allowed {
		w.Header().Set("Allow", strings.Join(e.methods, ", "))
		return r, cmg.Refuse(http.StatusMethodNotAllowed, "CMGMP_Method_Not_Allowed", "the path takes "+strings.Join(e.methods, ", "), nil)
	}
	r, err := p.proven(r, e.name == notificationName)
	if err != nil {
		return r, err
	}
	w.Header().Set("Cache-Control", "no-store")
	return r, e.serve(p, w, r)
}

// proven puts the caller into r's context and checks what r signs; apart does
// it in a goroutine of its own.
func (p *Point) proven(r *http.Request, apart bool) (*http.Request, error) {
	if apart {
		err := p.apart(&r, (*Point).withCallerSigned)
		return r, err
	}
	err := p.withCallerSigned(&r)
	return r, err
}

func (p *Point) withCallerSigned(r **http.Request) (err error) {
	if *r, err = p.withCaller(*r); err != nil {
		return err
	}
	return p.checkSignature(*r)
}

// badRequest gives an error that was found in what was sent its code; one
// that is not of that sort, or has a code, stays as it is.
func badRequest(why string, err error) error {
	var r *cmg.Refusal
	switch {
	case errors.As(err, &r):
		return err
	case errors.Is(err, cmg.ErrTooLarge):
		return cmg.Refuse(http.StatusRequestEntityTooLarge, "CMGMP_Too_Large", why+": it is over a limit", err)
	case errors.Is(err, cmg.ErrInvalid):
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", why, err)
	}
	return err
}
