package auth

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/opencmg/cmg"
)

// leafOf issues a client certificate that says where its revocation is told.
func leafOf(t testing.TB, a *Authority, serial int64, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "pc"},
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(day), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		CRLDistributionPoints: []string{"http://pki.example/a.crl"},
	}
	if change != nil {
		change(tmpl)
	}
	key := newAuthority(t, "only its key").key
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der))
}

// signingRoot is a root that may sign lists.
func signingRoot(t testing.TB, name string) *Authority {
	t.Helper()
	a := newRoot(t, name)
	tmpl := *a.cert
	tmpl.KeyUsage |= x509.KeyUsageCRLSign
	a.cert = must[*x509.Certificate](t)(sign(&tmpl, &tmpl, a.key.Public(), a.key))
	return a
}

func crlOf(t testing.TB, a *Authority, change func(*x509.RevocationList), serials ...int64) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	if change != nil {
		change(l)
	}
	return must[[]byte](t)(x509.CreateRevocationList(rand.Reader, l, a.cert, a.key))
}

func extension(t testing.TB, id asn1.ObjectIdentifier, v any) pkix.Extension {
	t.Helper()
	return pkix.Extension{Id: id, Critical: true, Value: must[[]byte](t)(asn1.Marshal(v))}
}

func TestReadCRL(t *testing.T) {
	root, twin := signingRoot(t, "root"), signingRoot(t, "root")
	other := signingRoot(t, "other")
	now := time.Now()
	with := func(es ...pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ExtraExtensions = es }
	}
	type only struct {
		Users       bool `asn1:"optional,tag:1"`
		Authorities bool `asn1:"optional,tag:2"`
		Indirect    bool `asn1:"optional,tag:4"`
		Attributes  bool `asn1:"optional,tag:5"`
	}
	type reasons struct {
		Reasons asn1.BitString `asn1:"optional,tag:3"`
	}
	uri := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("http://pki.example/part.crl")}
	full := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: must[[]byte](t)(asn1.Marshal(uri))}
	point := struct{ Point asn1.RawValue }{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: must[[]byte](t)(asn1.Marshal(full))}}
	for _, test := range []struct {
		name  string
		der   []byte
		say   string // of the error
		scope string
		point string
	}{
		{name: "plain", der: crlOf(t, root, nil, 5)},
		{name: "users only", der: crlOf(t, root, with(extension(t, oidIssuingPoint, only{Users: true})), 5), scope: "users"},
		{name: "authorities only", der: crlOf(t, root, with(extension(t, oidIssuingPoint, only{Authorities: true})), 5), scope: "authorities"},
		{name: "one distribution point", der: crlOf(t, root, with(extension(t, oidIssuingPoint, point)), 5), point: "http://pki.example/part.crl"},
		{name: "delta", der: crlOf(t, root, with(extension(t, oidDelta, 3))), say: "delta"},
		{name: "indirect", der: crlOf(t, root, with(extension(t, oidIssuingPoint, only{Indirect: true}))), say: "indirect"},
		{name: "attribute certificates", der: crlOf(t, root, with(extension(t, oidIssuingPoint, only{Attributes: true}))), say: "attribute"},
		{name: "some reasons", der: crlOf(t, root, with(extension(t, oidIssuingPoint, reasons{asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}}))), say: "reasons"},
		{name: "unknown critical", der: crlOf(t, root, with(extension(t, asn1.ObjectIdentifier{1, 2, 3}, 1))), say: "1.2.3"},
		{name: "of another issuer", der: crlOf(t, other, nil), say: "CN=other issued it"},
		{name: "of a twin", der: crlOf(t, twin, nil), say: "verification"},
		{name: "ended", der: crlOf(t, root, func(l *x509.RevocationList) { l.NextUpdate = now.Add(-time.Minute) }), say: "it ended"},
		{name: "of tomorrow", der: crlOf(t, root, func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = now.Add(day), now.Add(2*day) }), say: "has not come"},
		{name: "no list", der: []byte("<html>"), say: "malformed"},
		{name: "nothing", say: "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ReadCRL(test.der, root.cert, now)
			if test.say != "" {
				if err == nil || !strings.Contains(err.Error(), test.say) {
					t.Errorf("got %v, want an error with %q", err, test.say)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !c.Revoked.Has(big.NewInt(5)) || c.Revoked.Has(big.NewInt(6)) || c.Scope != test.scope || (len(c.Points) > 0) != (test.point != "") {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestOCSPAnswers(t *testing.T) {
	now := time.Now()
	root := signingRoot(t, "root")
	leaf := leafOf(t, root, 9, nil)
	signer := func(change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
		key := newAuthority(t, "key").key
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "responder"}, NotBefore: now.Add(-day), NotAfter: now.Add(day), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}
		if change != nil {
			change(tmpl)
		}
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, root.cert, key.Public(), root.key))
		return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
	}
	answer := func(change func(*ocsp.Response), by *x509.Certificate, key crypto.Signer, along bool) []byte {
		r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(10 * time.Minute)}
		if along {
			r.Certificate = by
		}
		if change != nil {
			change(&r)
		}
		return must[[]byte](t)(ocsp.CreateResponse(root.cert, by, r, key))
	}
	delegated, delegatedKey := signer(nil)
	client, clientKey := signer(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	old, oldKey := signer(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	stranger := signingRoot(t, "root")
	for _, test := range []struct {
		name  string
		b     []byte
		state StatusState
		until time.Time
	}{
		{"by the authority", answer(nil, root.cert, root.key, false), StatusGood, now.Add(10 * time.Minute)},
		{"by the authority, whose certificate comes along", answer(nil, root.cert, root.key, true), StatusGood, now.Add(10 * time.Minute)},
		{"delegated", answer(nil, delegated, delegatedKey, true), StatusGood, now.Add(10 * time.Minute)},
		{"believed for an hour at most", answer(func(r *ocsp.Response) { r.NextUpdate = now.Add(7 * day) }, delegated, delegatedKey, true), StatusGood, now.Add(time.Hour)},
		{"revoked", answer(func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now }, delegated, delegatedKey, true), StatusRevoked, now.Add(10 * time.Minute)},
		{"unknown", answer(func(r *ocsp.Response) { r.Status = ocsp.Unknown }, delegated, delegatedKey, true), StatusUnknown, now.Add(10 * time.Minute)},
		{"by a client of the same authority", answer(nil, client, clientKey, true), "", now},
		{"by an expired responder", answer(nil, old, oldKey, true), "", now},
		{"by a stranger", answer(nil, stranger.cert, stranger.key, false), "", now},
		{"by a stranger who comes along", answer(nil, stranger.cert, stranger.key, true), "", now},
		{"about another certificate", answer(func(r *ocsp.Response) { r.SerialNumber = big.NewInt(10) }, delegated, delegatedKey, true), "", now},
		{"ended", answer(func(r *ocsp.Response) { r.NextUpdate = now.Add(-time.Second) }, delegated, delegatedKey, true), "", now},
		{"of tomorrow", answer(func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(day), now.Add(2*day) }, delegated, delegatedKey, true), "", now},
		{"old, without an end", answer(func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(-2*day), time.Time{} }, delegated, delegatedKey, true), "", now},
		{"garbage", []byte("<html>"), "", now},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := readOCSP(test.b, leaf, root.cert, now)
			if test.state == "" {
				if err == nil {
					t.Errorf("it was taken: %+v", s)
				}
				return
			}
			if d := s.Until.Sub(test.until); err != nil || s.State != test.state || d < -2*time.Second || d > 2*time.Second {
				t.Errorf("got %+v, %v; want %s until %s", s, err, test.state, test.until)
			}
		})
	}
}

// judged is one judgement: what is known, and what comes of it.
func TestRevocationIsJudged(t *testing.T) {
	now := time.Now()
	root := signingRoot(t, "root")
	listed, bare := leafOf(t, root, 5, nil), leafOf(t, root, 6, func(c *x509.Certificate) { c.CRLDistributionPoints = nil })
	clean, asks := leafOf(t, root, 7, nil), leafOf(t, root, 8, func(c *x509.Certificate) {
		c.CRLDistributionPoints, c.OCSPServer = nil, []string{"http://ocsp.example"}
	})
	id := IssuerID(root.cert)
	list := must[CRL](t)(ReadCRL(crlOf(t, root, nil, 5), root.cert, now)).Revoked
	info := func(change func(*cmg.RevocationListInfo)) cmg.RevocationListInfo {
		i := cmg.RevocationListInfo{Issuer: id, URL: "http://pki.example/a.crl", This: now.Add(-time.Hour), Next: now.Add(time.Hour), Revoked: 1}
		if change != nil {
			change(&i)
		}
		return i
	}
	said := func(at time.Time, ss ...Status) *Answers {
		a := new(Answers)
		for _, s := range ss {
			a.put(s, at, at)
		}
		return a
	}
	about := func(c *x509.Certificate, state StatusState, until time.Time) Status {
		return Status{Certificate: sha256.Sum256(c.Raw), State: state, Until: until}
	}
	const revoked, unknown, ask = "_Revoked", "_Revocation_Unknown", "ask"
	soft, off := cmg.Revocation{Mode: cmg.RevocationSoft}, cmg.Revocation{Mode: cmg.RevocationOff}
	hard, graceful := cmg.Revocation{}, cmg.Revocation{Grace: 7200}
	one := func(i cmg.RevocationListInfo) []KnownList { return []KnownList{{i, list}} }
	for _, test := range []struct {
		name    string
		c       *x509.Certificate
		set     cmg.Revocation
		lists   []KnownList
		answers *Answers
		at      time.Duration
		want    string
	}{
		{"in the list", listed, hard, one(info(nil)), nil, 0, revoked},
		{"in the list, soft", listed, soft, one(info(nil)), nil, 0, revoked},
		{"in the list, off", listed, off, one(info(nil)), nil, 0, ""},
		{"in an ended list", listed, hard, one(info(nil)), nil, 100 * time.Hour / 10, revoked},
		{"not in the list", clean, hard, one(info(nil)), nil, 0, ""},
		{"list ended", clean, hard, one(info(nil)), nil, 2 * time.Hour, ask},
		{"list ended, within the grace", clean, graceful, one(info(nil)), nil, 2 * time.Hour, ""},
		{"grace over", clean, graceful, one(info(nil)), nil, 4 * time.Hour, ask},
		{"list for authorities", clean, hard, one(info(func(i *cmg.RevocationListInfo) { i.Scope = "authorities" })), nil, 0, ask},
		{"list for users", clean, hard, one(info(func(i *cmg.RevocationListInfo) { i.Scope = "users" })), nil, 0, ""},
		{"list of its point", clean, hard, one(info(func(i *cmg.RevocationListInfo) { i.Partial = true })), nil, 0, ""},
		{"list of another point", clean, hard, one(info(func(i *cmg.RevocationListInfo) { i.Partial, i.URL = true, "http://pki.example/b.crl" })), nil, 0, ask},
		{"list of another authority", clean, hard, one(info(func(i *cmg.RevocationListInfo) { i.Issuer = "00" })), nil, 0, ask},
		{"nobody says where to ask", bare, hard, nil, nil, 0, ""},
		{"the administrator says where to ask", bare, cmg.Revocation{Issuers: []cmg.IssuerRevocation{{Issuer: id, OCSP: []string{"http://ocsp.example"}}}}, nil, nil, 0, ask},
		{"off for its authority", clean, cmg.Revocation{Issuers: []cmg.IssuerRevocation{{Issuer: id, Mode: cmg.RevocationOff}}}, nil, nil, 0, ""},
		{"hard for its authority", clean, cmg.Revocation{Mode: cmg.RevocationOff, Issuers: []cmg.IssuerRevocation{{Issuer: id, Mode: cmg.RevocationHard}}}, nil, nil, 0, ask},
		{"not asked yet", asks, hard, nil, nil, 0, ask},
		{"not asked yet, soft", asks, soft, nil, nil, 0, ask},
		{"good by answer", asks, hard, nil, said(now, about(asks, StatusGood, now.Add(time.Hour))), 0, ""},
		{"good answer ended", asks, hard, nil, said(now, about(asks, StatusGood, now.Add(time.Hour))), 2 * time.Hour, ask},
		{"revoked by answer", asks, soft, nil, said(now, about(asks, StatusRevoked, now.Add(time.Hour))), 0, revoked},
		{"nobody knew", asks, hard, nil, said(now, about(asks, StatusUnknown, now)), 0, unknown},
		{"nobody knew, soft", asks, soft, nil, said(now, about(asks, StatusUnknown, now)), 0, ""},
		{"nobody knew, a minute ago", asks, hard, nil, said(now, about(asks, StatusUnknown, now)), time.Minute, ask},
		{"revoked, then silence", asks, hard, nil, said(now, about(asks, StatusRevoked, now), about(asks, StatusUnknown, now)), 0, revoked},
		{"good, then silence within the grace", asks, graceful, nil, said(now, about(asks, StatusGood, now.Add(-time.Hour)), about(asks, StatusUnknown, now)), 0, ""},
		{"good, then silence for too long", asks, graceful, nil, said(now, about(asks, StatusGood, now.Add(-3*time.Hour)), about(asks, StatusUnknown, now)), 0, unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newRevocations(test.set, Known{Lists: test.lists, Answers: test.answers})
			_, err := v.judge([][]*x509.Certificate{{test.c, root.cert}}, now.Add(test.at))
			var u *Unchecked
			switch {
			case test.want == "":
				if err != nil {
					t.Error(err)
				}
			case test.want == ask:
				if !errors.As(err, &u) || len(u.Chain) != 2 {
					t.Errorf("got %v, want that somebody asks", err)
				}
			default:
				wantCode(t, err, 403, codeCertificate+test.want)
				if errors.As(err, &u) {
					t.Errorf("%v wants somebody to ask again", err)
				}
			}
		})
	}
	t.Run("one chain of two is enough", func(t *testing.T) {
		v := newRevocations(hard, Known{Lists: one(info(nil))})
		if _, err := v.judge([][]*x509.Certificate{{listed, root.cert}, {clean, root.cert}}, now); err != nil {
			t.Error(err)
		}
	})
}

// What was proven is forgotten no later than the list that proved it ends.
func TestProofEndsWithItsList(t *testing.T) {
	now := time.Now()
	root := signingRoot(t, "root")
	leaf := leafOf(t, root, 5, nil)
	info := cmg.RevocationListInfo{Issuer: IssuerID(root.cert), URL: leaf.CRLDistributionPoints[0], This: now, Next: now.Add(time.Hour)}
	p := cmg.Publication{Version: 1, Site: testSite, Anchors: []string{string(certificatePEM(root.cert))}, Revocation: cmg.Revocation{Lists: []cmg.RevocationListInfo{info}}}
	trust := must[*Trust](t)(NewTrustWith(p, Known{Lists: []KnownList{{info, new(RevokedList)}}}))
	e := Evidence{Certificates: []*x509.Certificate{leaf}}
	for _, at := range []time.Duration{0, time.Minute, 59 * time.Minute} {
		if _, err := trust.Verify(e, byCertificate, now.Add(at)); err != nil {
			t.Fatal(at, err)
		}
	}
	_, err := trust.Verify(e, byCertificate, now.Add(61*time.Minute))
	wantCode(t, err, 403, "CMGService_Certificate_Revocation_Unknown")
}

func TestAnswersAreSigned(t *testing.T) {
	site, now := newAuthority(t, "site CA"), time.Now()
	signing, gateway := identity(t, site, cmg.RoleSite, "site"), identity(t, site, cmg.RoleGateway, "gw1")
	s := Status{Certificate: sha256.Sum256([]byte("x")), State: StatusGood, Until: now.Add(time.Hour)}
	text := must[string](t)(SignStatuses(signing, now, []Status{s}))
	var a Answers
	if err := a.Take(gateway, text, now); err != nil {
		t.Fatal(err)
	}
	if got, ok := a.get(s.Certificate); !ok || got.State != StatusGood {
		t.Errorf("got %+v, %v", got, ok)
	}
	for name, bad := range map[string]string{
		"changed": text[:len(text)-4] + "AAAA", "empty": "", "long": strings.Repeat("a", maxStatement+1),
		"a publication": must[string](t)(SignPublication(signing, cmg.Publication{Version: 1, Site: testSite})),
	} {
		if err := a.Take(gateway, bad, now); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := SignStatuses(gateway, now, nil); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("a gateway signed it: %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var a Answers
	var d cmg.Digest
	for i := range maxAnswers * 2 {
		d[0], d[1], d[2] = byte(i), byte(i>>8), byte(i>>16)
		a.put(Status{Certificate: d, State: StatusGood}, time.Now(), time.Now())
	}
	if n := len(a.new) + len(a.old); n > maxAnswers {
		t.Errorf("%d are kept", n)
	}
}

func TestRevokedListDocument(t *testing.T) {
	l := must[*RevokedList](t)(newRevokedList([]uint64{serialKey(big.NewInt(3)), serialKey(big.NewInt(-3)), serialKey(big.NewInt(3))}))
	if l.Len() != 2 || !l.Has(big.NewInt(-3)) || l.Has(big.NewInt(4)) {
		t.Errorf("got %+v", l)
	}
	back := must[*RevokedList](t)(ReadRevokedList(l.Document()))
	if string(back.Document()) != string(l.Document()) {
		t.Error("it is another list than was written")
	}
	doc := l.Document()
	for name, bad := range map[string][]byte{
		"empty": nil, "cut": doc[:len(doc)-1], "other name": append([]byte("x"), doc[1:]...),
		"twice": append(doc[:len(doc):len(doc)], doc[len(doc)-8:]...), "long": make([]byte, MaxRevokedList+1),
	} {
		if _, err := ReadRevokedList(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := newRevokedList(make([]uint64, maxRevoked+1)); !errors.Is(err, cmg.ErrTooLarge) {
		t.Errorf("a list that is too long: %v", err)
	}
}

// Every one of many published authorities is good for its clients, in a
// publication of theirs all.
func TestManyAnchors(t *testing.T) {
	var anchors []*x509.Certificate
	var last *Authority
	for i := range 64 {
		root := newRoot(t, "root "+string(rune('A'+i%26))+string(rune('a'+i/26)))
		last = below(t, root, "below", time.Now().Add(-day), day*30)
		anchors = append(anchors, root.cert, last.cert)
	}
	trust := trustOf(t, nil, anchors...)
	if _, err := trust.Verify(Evidence{Certificates: []*x509.Certificate{leafOf(t, last, 3, func(c *x509.Certificate) { c.CRLDistributionPoints = nil })}}, byCertificate, time.Now()); err != nil {
		t.Error(err)
	}
}
