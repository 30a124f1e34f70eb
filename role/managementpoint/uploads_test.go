package managementpoint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

func withUploads(dir string) func(*Config) {
	return func(c *Config) { c.Uploads.Dir = dir }
}

// uploader is a BITS client whose requests come through a gateway as by, or,
// without a proof, straight from the inside.
func (a *agent) uploader(by cmg.Caller, header http.Header) *bits.Client {
	client := a.cp
	if by.Proof == cmg.ProofNone {
		client = a.client(a.gateway.Client()) // anybody inside who is no connection point
	}
	return &bits.Client{Fragment: 100_000, Tries: 2, Wait: time.Millisecond, Do: func(r *http.Request) (*http.Response, error) {
		for k, v := range header {
			r.Header[k] = v
		}
		if by.Proof != cmg.ProofNone {
			r.Header.Set(auth.CallerHeader, must(auth.NewCallerSigner(a.gateway).Sign(by, a.now()))(a.t))
		}
		return client.Do(r)
	}}
}

func (a *agent) uploadTo(name string, file []byte) bits.Source {
	return bits.Source{URL: a.url + "/ccm_incoming/" + name, Size: int64(len(file)), ReaderAt: bytes.NewReader(file)}
}

// signedHeaders are the CCMClient headers of a device that signs with its key.
func (a *agent) signedHeaders(at time.Time) http.Header {
	h, text := http.Header{}, at.UTC().Format(ccm.TimeLayout)
	h.Set(ccm.HeaderClientID, string(a.id))
	h.Set(ccm.HeaderClientIDSignature, must(ccm.SignText(a.key, string(a.id)))(a.t))
	h.Set(ccm.HeaderTimestamp, text)
	h.Set(ccm.HeaderTimestampSignature, must(ccm.SignText(a.key, text))(a.t))
	return h
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestUploads(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, withUploads(dir))
	a, b := l.registered(), l.registered()
	file := randomBytes(250_000)
	misspelt := a.signedHeaders(l.now())
	misspelt["Ccmclienttimestampssignature"] = misspelt["Ccmclienttimestampsignature"]
	delete(misspelt, "Ccmclienttimestampsignature")
	for name, c := range map[string]*bits.Client{
		"{1}": a.uploader(a.bySession(), nil),
		"{2}": a.uploader(byCertificate(a.id), nil),
		"{3}": a.uploader(byCertificate(""), a.signedHeaders(l.now())),
		"{4}": a.uploader(cmg.Caller{}, a.signedHeaders(l.now().Add(-23*time.Hour))),
		"{5}": a.uploader(cmg.Caller{}, misspelt),
	} {
		if err := c.Upload(t.Context(), a.uploadTo(name, file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	kept := must(l.site.Uploads(t.Context(), a.id, 0))(t)
	if len(kept) != 5 {
		t.Fatalf("kept %+v", kept)
	}
	for _, u := range kept {
		if got, err := os.ReadFile(filepath.Join(dir, "kept", u.ID)); err != nil || !bytes.Equal(got, file) || u.SHA256 != sha256.Sum256(file) || u.Size != 250_000 {
			t.Errorf("%+v: %d bytes, %v", u, len(got), err)
		}
	}
	forged := a.signedHeaders(l.now())
	forged.Set(ccm.HeaderClientID, string(b.id))
	for name, test := range map[string]struct {
		client *bits.Client
		path   string
		status int
		code   string
		result bits.HResult
	}{
		"nobody":             {a.uploader(cmg.Caller{}, nil), "{1}", 401, "CMGMP_Proof_Required", bits.ResultAccessDenied},
		"a nameless proof":   {a.uploader(byCertificate(""), nil), "{1}", 401, "CMGMP_Proof_Required", bits.ResultAccessDenied},
		"a device token":     {a.uploader(a.byDeviceToken(), nil), "{1}", 403, "CMGMP_Token_Kind", bits.ResultAccessDenied},
		"an unknown device":  {a.uploader(byCertificate(cmg.NewDeviceID()), nil), "{1}", 401, "CMGMP_Device_Unknown", bits.ResultAccessDenied},
		"somebody's headers": {a.uploader(a.bySession(), b.signedHeaders(l.now())), "{1}", 403, "CMGMP_Sender_Mismatch", bits.ResultAccessDenied},
		"a forged id":        {a.uploader(cmg.Caller{}, forged), "{1}", 401, "CMGMP_Proof_Invalid", bits.ResultAccessDenied},
		"old headers":        {a.uploader(cmg.Caller{}, a.signedHeaders(l.now().Add(-25*time.Hour))), "{1}", 401, "CMGMP_Proof_Invalid", bits.ResultAccessDenied},
		"a name like a path": {a.uploader(a.bySession(), nil), "..%5C..%5Cx", 400, "CMGMP_Bad_Request", bits.ResultInvalid},
		"a folder":           {a.uploader(a.bySession(), nil), "a/b", 400, "CMGMP_Bad_Request", bits.ResultInvalid},
		"no name":            {a.uploader(a.bySession(), nil), "", 400, "CMGMP_Bad_Request", bits.ResultInvalid},
	} {
		var f *bits.Failure
		err := test.client.Upload(t.Context(), a.uploadTo(test.path, file))
		if !errors.As(err, &f) || f.Status != test.status || f.Code != test.code || f.Result != test.result {
			t.Errorf("%s: %v, want %d %s %s", name, err, test.status, test.code, test.result)
		}
	}
	_, _, err := l.do(call{method: "GET", path: "/CCM_Incoming/{1}", caller: a.bySession()})
	refused(t, err, 405, "CMGMP_Method_Not_Allowed")
	if s := l.statusOf(); s.Requests["CCM_Incoming"] == 0 {
		t.Errorf("status %+v", s)
	}

	l.clock.Add(int64(31 * 24 * time.Hour / time.Second))
	if err := l.point.tendUploads(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := must(os.ReadDir(filepath.Join(dir, "kept")))(t)
	if kept := must(l.site.Uploads(t.Context(), "", 0))(t); len(kept) != 0 || len(left) != 0 {
		t.Errorf("a month later: %+v, %v", kept, left)
	}
}

// TestUploadedMessage: a report that is too large to be posted comes as a
// file, and is taken as if it had been posted.
func TestUploadedMessage(t *testing.T) {
	l := newLab(t, withUploads(t.TempDir()))
	a, b := l.registered(), l.registered()
	report := ccm.Report{Content: ccm.ContentInventory, Type: "Full", Date: l.now(), Device: a.id}
	action := ccm.ActionDiscovery(l.now())
	report.Action = &action
	for range 20_000 {
		report.Instances = append(report.Instances, ccm.ReportedInstance{Content: "New", Namespace: `\\.\root\cimv2`, ParentClass: "Win32_Product", Instance: ccm.Instance{
			Class: "Win32_Product", Properties: []ccm.Property{{Name: "Name", Value: "a program with a long name, for the sake of its length"}}}})
	}
	body := report.XML()
	encode := func(s ccm.Sending) []byte {
		s.SourceHost, s.TargetHost, s.SentTime = "PC1", "mp1.inside", l.now()
		_, b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := ccm.Sending{ID: "{3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A0F}", Source: a.id, Key: a.key, TargetEndpoint: ccm.EndpointDiscovery, Async: true, Body: body}
	message := encode(good)
	if len(body)*2 < int(limits.Payload) {
		t.Fatalf("the report has only %d characters", len(body))
	}
	upload := func(a *agent, b []byte) error {
		return a.uploader(a.bySession(), nil).Upload(t.Context(), a.uploadTo("{"+strings.ToUpper(cmg.NewGUID())+"}", b))
	}
	for range 2 { // whoever could not hear the answer says it again
		if err := upload(a, message); err != nil {
			t.Fatal(err)
		}
	}
	reports := must(l.site.Reports(t.Context(), a.id, "Discovery", 0))(t)
	if len(reports) != 1 || reports[0].Body != body {
		t.Fatalf("%d reports", len(reports))
	}
	for name, test := range map[string]struct {
		by      *agent
		message func(s *ccm.Sending)
		code    string
	}{
		"somebody else's": {b, func(*ccm.Sending) {}, "CMGMP_Sender_Mismatch"},
		"another key":     {a, func(s *ccm.Sending) { s.Key = b.key }, "CMGMP_Signature_Invalid"},
		"no report":       {a, func(s *ccm.Sending) { s.Body = "<x/>" }, "CMGMP_Bad_Request"},
	} {
		s := good
		s.Body = "<Report/>"
		test.message(&s)
		var f *bits.Failure
		if err := upload(test.by, encode(s)); !errors.As(err, &f) || f.Code != test.code || f.Context != bits.ContextApplication {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	if kept := must(l.site.Uploads(t.Context(), "", 0))(t); len(kept) != 0 {
		t.Errorf("kept as files: %+v", kept)
	}
	// What only looks like a message, or is none for a file, is a file.
	s := good
	s.TargetEndpoint, s.Body = ccm.EndpointPolicy, "<x/>"
	for _, b := range [][]byte{[]byte("--x\r\nno message"), []byte("--"), []byte("---\n"), nil, encode(s)} {
		if err := upload(a, b); err != nil {
			t.Errorf("%q: %v", b, err)
		}
	}
	if kept := must(l.site.Uploads(t.Context(), a.id, 0))(t); len(kept) != 5 {
		t.Errorf("kept as files: %+v", kept)
	}
}

// TestUploadGoesOn ends the management point in the middle, and once more
// between the file's move and its record.
func TestUploadGoesOn(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, withUploads(dir))
	a := l.registered()
	file := randomBytes(500_000)
	ended := false
	inner := a.uploader(a.bySession(), nil)
	client := &bits.Client{Fragment: inner.Fragment, Wait: time.Millisecond, Do: inner.Do}
	source := a.uploadTo("{1}", file)
	client.Progress = func(received, _ int64) {
		if ended = ended || received > 250_000; received > 250_000 && received < 350_000 {
			l.end()
		}
	}
	session := ""
	source.Begun = func(s string) error { session = s; return nil }
	if err := client.Upload(t.Context(), source); err == nil || !ended {
		t.Fatalf("uploaded to nobody: %v", err)
	}
	l.start()
	again := a.uploadTo("{1}", file)
	again.Session, again.Begun = session, func(string) error { t.Error("it began again"); return nil }
	client.Progress = nil
	if err := client.Upload(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	kept := must(l.site.Uploads(t.Context(), a.id, 0))(t)
	if len(kept) != 1 || kept[0].SHA256 != sha256.Sum256(file) {
		t.Fatalf("kept %+v", kept)
	}
	u := bits.Upload{ID: kept[0].ID, Owner: string(a.id), Name: "{1}", Size: kept[0].Size, SHA256: kept[0].SHA256, Path: filepath.Join(dir, "sessions", kept[0].ID+".data")}
	if err := l.site.RemoveUpload(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.point.takeUpload(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	want := site.Upload{ID: u.ID, Device: a.id, Name: "{1}", Size: u.Size, SHA256: u.SHA256}
	again2 := must(l.site.Uploads(t.Context(), a.id, 0))(t)
	if len(again2) != 1 {
		t.Fatalf("kept %+v", again2)
	}
	if want.Received = again2[0].Received; again2[0] != want {
		t.Errorf("%+v, want %+v", again2[0], want)
	}
}

func TestUploadsKept(t *testing.T) {
	l := newLab(t, withUploads(t.TempDir()), func(c *Config) { c.Uploads.KeepBytes = 1000 })
	a, b := l.registered(), l.registered()
	c := a.uploader(a.bySession(), nil)
	if err := c.Upload(t.Context(), a.uploadTo("{1}", randomBytes(1000))); err != nil {
		t.Fatal(err)
	}
	var f *bits.Failure
	if err := c.Upload(t.Context(), a.uploadTo("{2}", []byte("x"))); !errors.As(err, &f) || f.Code != "CMGMP_Uploads_Kept" || f.Result != bits.ResultAccessDenied {
		t.Errorf("%v", err)
	}
	if err := b.uploader(b.bySession(), nil).Upload(t.Context(), b.uploadTo("{1}", []byte("x"))); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}

func TestUploadsOff(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	var f *bits.Failure
	err := a.uploader(a.bySession(), nil).Upload(t.Context(), a.uploadTo("{1}", []byte("x")))
	if !errors.As(err, &f) || f.Status != 501 || f.Code != "CMGMP_Uploads_Off" || f.Result != bits.ResultAccessDenied {
		t.Errorf("%v", err)
	}
	c := l.cfg
	c.Uploads.Dir, c.Uploads.Keep = t.TempDir(), time.Second
	if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("keep of a second: %v", err)
	}
}
