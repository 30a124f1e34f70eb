package agent

import (
	"bytes"
	"errors"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
)

// managementPoint answers what the gateway let through.
func (l *lab) managementPoint(w http.ResponseWriter, r *http.Request, path string, c auth.Claims) error {
	messages := "/ccm_system/request"
	if c.Kind != "" {
		messages = "/ccm_system_tokenauth/request"
	}
	if r.Method == bits.Method {
		return l.incoming(w, r, path, c)
	}
	switch r.Method + " " + path {
	case "POST /CCM_STS":
		return l.exchange(w, r, c)
	case "POST /bgb/handler.ashx":
		return l.notification(w, r, c)
	case "GET /SMS_MP/.sms_pol":
		return l.policyBody(w, r, c)
	case "GET /SMS_MP/.sms_aut":
		if r.URL.RawQuery != "SITESIGNCERT" {
			return cmg.ErrNotFound
		}
		_, err := w.Write([]byte(ccm.SiteSigningCertificate(l.siteCert)))
		return err
	case ccm.Method + " " + messages:
		return l.message(w, r, c)
	}
	return cmg.Refuse(http.StatusNotFound, "CMGMP_Path_Unknown", path, nil)
}

// exchange takes a device token and a proof for a session token.
func (l *lab) exchange(w http.ResponseWriter, r *http.Request, c auth.Claims) error {
	if c.Kind != auth.TokenDevice {
		return errNotForThisToken
	}
	if err := l.asked("session"); err != nil {
		return err
	}
	l.mu.Lock()
	d, ok := l.devices[c.Device]
	value := r.Header.Get(ccm.HeaderClientToken)
	used := l.proofs[value]
	l.proofs[value] = true
	l.mu.Unlock()
	if !ok {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Unknown", "register first", nil)
	}
	if used {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Proof_Replayed", "sign a new time", nil)
	}
	key, err := ccm.SigningKey(d.Signing)
	if err != nil {
		return err
	}
	id, err := ccm.ReadClientToken(value, r.Header.Get(ccm.HeaderClientTokenSignature), key, l.now(), 15*time.Minute)
	if err != nil || id != c.Device {
		return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", "wrong key or time", err)
	}
	until := l.now().Add(8 * time.Hour)
	token, err := l.keys.Issue(auth.Claims{Kind: auth.TokenSession, Site: siteCode, Device: id, NotBefore: l.now(), Expires: until})
	if err != nil {
		return err
	}
	answer := map[string]any{"token": token, "token_type": "Bearer", "expires": until.UTC().Truncate(time.Second)}
	if l.renews {
		until := l.now().Add(90 * 24 * time.Hour)
		token, err := l.keys.Issue(auth.Claims{Kind: auth.TokenDevice, Site: siteCode, Device: id, NotBefore: l.now(), Expires: until})
		if err != nil {
			return err
		}
		answer["device_token"] = map[string]any{"token": token, "expires": until.UTC().Truncate(time.Second)}
	}
	return writeJSON(w, answer)
}

func (l *lab) policyBody(w http.ResponseWriter, r *http.Request, c auth.Claims) error {
	if c.Kind != "" && c.Kind != auth.TokenSession {
		return errNotForThisToken
	}
	if err := l.asked("policy"); err != nil {
		return err
	}
	id, _, err := ccm.ReadPolicyQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.policies {
		if p.ID == id {
			body := p.Body
			if p.Flags&cmg.PolicySecret != 0 {
				if r.Header.Get("Accept") != ccm.EnvelopeType {
					return errors.New("a secret policy was asked for in whatever form")
				}
				if h, err := ccm.ReadClientHeader(r.Header); err != nil || h == nil || h.Device != c.Device {
					return errors.New("nobody signed for a secret policy")
				}
				if body, err = ccm.Seal(l.devices[c.Device].Signing, body, l.sealOld); err != nil {
					return err
				}
			}
			_, err := w.Write(body)
			return err
		}
	}
	return cmg.ErrNotFound
}

// message answers CCM_POST. Everything but a registration has to be signed by
// the key that was registered.
func (l *lab) message(w http.ResponseWriter, r *http.Request, c auth.Claims) error {
	m, err := ccm.ReadMessage(r.Header.Get("Content-Type"), r.Body, ccm.Limits{})
	if err != nil {
		return err
	}
	text, err := m.Text()
	if err != nil {
		return err
	}
	if err := l.asked(m.TargetEndpoint); errors.Is(err, errEmptyAnswer) {
		return nil
	} else if err != nil {
		return err
	}
	var reply string
	if m.TargetEndpoint == ccm.EndpointRegistration {
		reply, err = l.register(text, c)
	} else if err = l.sender(m, c); err == nil {
		reply, err = l.answer(m, text)
	}
	if err != nil {
		return err
	}
	contentType, body, err := ccm.Reply(m, reply, time.Now())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	_, err = bytes.NewReader(body).WriteTo(w)
	return err
}

// errEmptyAnswer makes the lab answer 200 without a body.
var errEmptyAnswer = errors.New("empty answer")

func (l *lab) sender(m *ccm.Message, c auth.Claims) error {
	if c.Kind != "" && (c.Kind != auth.TokenSession || c.Device != m.Source) {
		return errNotForThisToken
	}
	l.mu.Lock()
	d, ok := l.devices[m.Source]
	l.mu.Unlock()
	if !ok {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Unknown", "register first", nil)
	}
	key, err := ccm.SigningKey(d.Signing)
	if err != nil {
		return err
	}
	return m.VerifySender(key)
}

func (l *lab) register(text string, c auth.Claims) (string, error) {
	if c.Kind == auth.TokenDevice {
		return "", errNotForThisToken
	}
	r, err := ccm.ReadRegistration(text)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := c.Device
	for known, d := range l.devices {
		if bytes.Equal(d.Signing, r.Signing) {
			id = known
		}
	}
	if id == "" {
		id = cmg.NewDeviceID()
	}
	l.devices[id] = r
	now := time.Now().Add(l.ahead)
	reply := ccm.RegistrationReply{SMSID: id, Approval: cmg.Approved, Time: now, Expires: now.Add(90 * 24 * time.Hour)}
	reply.DeviceToken, err = l.keys.Issue(auth.Claims{Kind: auth.TokenDevice, Site: siteCode, Device: id, NotBefore: now, Expires: reply.Expires})
	return reply.XML(), err
}

func (l *lab) answer(m *ccm.Message, text string) (string, error) {
	switch m.TargetEndpoint {
	case ccm.EndpointPolicy:
		return l.assignments(text)
	case ccm.EndpointLocation:
		return l.location(m, text)
	case ccm.EndpointState, ccm.EndpointDiscovery:
		r, err := ccm.ReadReport(text)
		if err != nil {
			return "", err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.reports[m.ID] = r
		return "", nil
	}
	return "", cmg.ErrNotFound
}

func (l *lab) assignments(text string) (string, error) {
	if _, err := ccm.ReadAssignmentRequest(text); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var reply ccm.AssignmentReply
	for _, p := range l.policies {
		a := ccm.AssignmentOf(p)
		if lie, ok := l.digests[p.ID]; ok {
			a.Digest = lie
		}
		if err := a.Sign(l.siteKey); err != nil {
			return "", err
		}
		if l.tamper != nil {
			l.tamper(&a)
		}
		reply.Assignments = append(reply.Assignments, a)
	}
	return reply.XML(), nil
}

func (l *lab) location(m *ccm.Message, text string) (string, error) {
	r, err := ccm.ReadContentLocationRequest(text)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	grant, ok := l.grants[grantKey{r.Package, r.Version}]
	l.mu.Unlock()
	if !ok {
		return "", cmg.Refuse(http.StatusNotFound, "CMGMP_Content_Unknown", "no such version", nil)
	}
	from, until := l.now(), l.now().Add(24*time.Hour)
	token, err := l.keys.Issue(auth.Claims{Kind: auth.TokenContent, Site: siteCode, Device: m.Source, Packages: []cmg.PackageGrant{grant}, NotBefore: from, Expires: until})
	if err != nil {
		return "", err
	}
	return ccm.ContentLocationReply{Package: r.Package, Version: r.Version, Manifest: grant.Manifest, SiteCode: siteCode, Token: token, Expires: until,
		Locations: []ccm.ContentLocation{{URL: ccm.ManifestURL("gw.example", "mp.example", m.Source, r.Package, from, until), Server: "gw.example"}}}.XML(), nil
}
