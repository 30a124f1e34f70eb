package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

// A labStep is one request of the walk and what became of it.
type labStep struct {
	Number  int     `json:"number"`
	Title   string  `json:"title"`
	Request string  `json:"request"`
	By      string  `json:"by"`
	Proof   string  `json:"proof"`
	Status  int     `json:"status,omitempty"` // 0: a role took the step by itself
	Code    string  `json:"code,omitempty"`   // of the refusal
	Answer  string  `json:"answer"`
	Millis  float64 `json:"ms"` // that it took; of a role's own step since the lab began
	OK      bool    `json:"ok"`
}

// An errand is a step before it is walked.
type errand struct {
	title       string
	path        string
	certificate string // whose to show; empty: none
	token       string
	proof       string
	status      int    // that has to come
	code        string // and the refusal's code, or how it begins
	server      string // URL of a server of the user's, where the way leads to one
	check       func(body []byte) (answer string, err error)
}

// maxAnswer bounds what the walk reads of an answer: a manifest of a large
// package is the longest.
const maxAnswer = 128 << 20

// walk goes the ways of the data flow by hand, the refused ones too.
func (l *lab) walk(ctx context.Context, sum *labSummary) error {
	errands, err := l.errands(ctx, sum)
	if err != nil {
		return err
	}
	for _, e := range errands {
		if err := l.step(ctx, sum, e); err != nil {
			return err
		}
	}
	return nil
}

// errands lists the walk. What is refused comes last, so that one sees
// whether it was.
func (l *lab) errands(ctx context.Context, sum *labSummary) ([]errand, error) {
	content, expired, err := l.walkTokens(ctx, sum)
	if err != nil {
		return nil, err
	}
	mplist := func(proof cmg.Proof) string { return l.prefix(proof) + "/SMS_MP/.sms_aut?MPLIST" }
	manifest := strings.TrimPrefix(ccm.ManifestURL(l.service(), "urn:cmg:site:"+labSite, sum.device(), l.pack.ID, l.began, l.began.Add(24*time.Hour)), l.url())
	all := []errand{
		{title: "management point list", path: mplist(cmg.ProofCertificate), certificate: "curl", proof: "client certificate", status: 200, check: checkList},
		{title: "management point list", path: mplist(cmg.ProofToken), token: sum.token, proof: "session token", status: 200, check: checkList},
		{title: "content manifest, then one file from the store", path: manifest, token: content, proof: "content token", status: 200,
			check: func(body []byte) (string, error) { return l.fetchOne(ctx, body) }},
	}
	for _, m := range l.maps {
		all = append(all, errand{title: "your server", path: m.Route.Prefix + "/", certificate: "curl", proof: "client certificate", server: m.Target})
	}
	return append(all,
		errand{title: "refused: somebody else's certificate", path: mplist(cmg.ProofCertificate), certificate: "stranger", proof: "foreign certificate", status: 403, code: "CMGService_Certificate_"},
		errand{title: "refused: no certificate", path: mplist(cmg.ProofCertificate), proof: "none", status: 403, code: "CMGService_Client_Certificate_Required"},
		errand{title: "refused: no token", path: mplist(cmg.ProofToken), proof: "none", status: 401, code: "CMGService_Authentication_Required"},
		errand{title: "refused: expired token", path: mplist(cmg.ProofToken), token: expired, proof: "expired token", status: 401, code: "CMGService_Invalid_Token"},
		errand{title: "refused: unpublished path", path: "/AdminService/wmi", certificate: "curl", proof: "client certificate", status: 403, code: "CMGService_Not_Published"},
	), nil
}

// walkTokens makes a content token such as the management point hands out,
// and a session token that expired an hour ago.
func (l *lab) walkTokens(ctx context.Context, sum *labSummary) (content, expired string, err error) {
	db, err := l.site.open(ctx, l.now)
	if err != nil {
		return "", "", err
	}
	content, err = l.site.newToken(ctx, db, auth.Claims{Kind: auth.TokenContent, Device: sum.device(), Packages: []cmg.PackageGrant{l.pack.Grant()}}, 24*time.Hour, 0)
	if err = errors.Join(err, db.Close()); err != nil {
		return "", "", err
	}
	ring, err := auth.LoadKeyring(l.site.tokenKeys())
	if err != nil {
		return "", "", err
	}
	now := l.now()
	expired, err = ring.Issue(auth.Claims{
		Kind: auth.TokenSession, Site: labSite, Device: sum.device(), NotBefore: now.Add(-9 * time.Hour), Expires: now.Add(-time.Hour),
	})
	return content, expired, err
}

// step sends one request on a connection of its own and tells what came of it.
func (l *lab) step(ctx context.Context, sum *labSummary, e errand) error {
	client, err := l.client(e.certificate)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url()+e.path, nil)
	if err != nil {
		return err
	}
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	s := labStep{Number: len(sum.Steps) + 1, Title: e.title, Request: "GET " + e.path, By: e.certificate, Proof: e.proof}
	if s.By == "" {
		s.By = "curl"
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err == nil {
		s.Status = resp.StatusCode
		s.Answer, s.Code, err = e.judge(resp)
		resp.Body.Close()
	}
	if s.Code == codeUnreachable && e.server != "" {
		err = unreachable(ctx, e.server)
	}
	s.Millis = float64(time.Since(began).Microseconds()) / 1000
	s.OK = err == nil
	if err != nil {
		s.Answer = err.Error()
	}
	sum.Steps = append(sum.Steps, s)
	l.tell(s)
	return nil
}

func (l *lab) tell(s labStep) {
	verdict := ""
	if !s.OK {
		verdict = " WRONG"
	}
	status, took := "", fmt.Sprintf("at %.2f s", s.Millis/1000)
	if s.Status != 0 {
		status, took = fmt.Sprintf("%d ", s.Status), fmt.Sprintf("%.1f ms", s.Millis)
	}
	request := s.Request
	if len(request) > 110 {
		request = request[:109] + "…"
	}
	l.say("%3d. %s\n     %s, by %s\n     proof: %s\n     → %s%s (%s)%s", s.Number, s.Title, request, s.By, s.Proof, status, s.Answer, took, verdict)
}

// judge says what the answer is, and an error where it is not the one that
// has to come.
func (e errand) judge(resp *http.Response) (answer, code string, err error) {
	refusal := web.ReadAnswer(resp)
	var r *cmg.Refusal
	if errors.As(refusal, &r) {
		answer, code = r.Error(), r.Code
	}
	switch {
	case e.server != "": // only the way to it is ours
		if strings.HasPrefix(code, "CMGService_") {
			return answer, code, errors.New(answer)
		}
		return strings.TrimSpace(strings.TrimPrefix(resp.Status, strconv.Itoa(resp.StatusCode))), code, nil
	case resp.StatusCode != e.status:
		return answer, code, fmt.Errorf("%s: status %d was expected", answer, e.status)
	case !strings.HasPrefix(code, e.code) || (e.code == "") != (code == ""):
		return answer, code, fmt.Errorf("%s: the code %s was expected", answer, e.code)
	case e.check == nil:
		return answer, code, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", "", err
	}
	answer, err = e.check(body)
	return answer, "", err
}

func checkList(body []byte) (string, error) {
	list, err := ccm.ReadMPList(string(body))
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", errors.New("the list names no management point")
	}
	return fmt.Sprintf("MPList with %d management point(s)", len(list)), nil
}

// fetchOne reads a manifest and downloads the largest of its first files
// straight from the store.
func (l *lab) fetchOne(ctx context.Context, manifest []byte) (string, error) {
	m, err := content.ReadManifest(strings.NewReader(string(manifest)))
	if err != nil {
		return "", err
	}
	files, best := m.Manifest.Files, 0
	if len(files) == 0 {
		return "an empty package", nil
	}
	for i, f := range files[:min(20, len(files))] {
		if f.Size > files[best].Size && f.Size < maxAnswer {
			best = i
		}
	}
	file := files[best]
	client, err := l.client("")
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URLs[best], nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := web.ReadAnswer(resp); err != nil {
		return "", err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	if err != nil {
		return "", err
	}
	if cmg.Digest(sum.Sum(nil)) != file.SHA256 {
		return "", fmt.Errorf("file %s: the digest is wrong", file.Path)
	}
	return fmt.Sprintf("%d files; %s (%s) verified", len(files), file.Path, size(n)), nil
}

// client makes a client that finds the gateway's service name here, as curl
// --resolve does, and shows a certificate of the lab's.
func (l *lab) client(certificate string) (*http.Client, error) {
	files := auth.ClientFiles{Roots: l.file("certs", "roots.crt")}
	if certificate != "" {
		files.Certificate, files.Key = l.file("certs", certificate+".crt"), l.file("certs", certificate+".key")
	}
	settings, err := auth.ClientTo(files)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == l.service() {
			address = local(l.ports.client)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DialContext: dial, DisableKeepAlives: true}}, nil
}
