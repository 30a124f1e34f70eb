package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
)

// takeUploads gives the lab a place for uploads. What is uploaded has to be a
// message, by the device whose proof and headers came with it.
func (l *lab) takeUploads() {
	l.t.Helper()
	s, err := bits.NewServer(bits.Config{Dir: l.file("uploads"), Now: l.now, Deliver: func(_ context.Context, u bits.Upload) error {
		f, err := os.Open(u.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := ccm.ReadMessage(`multipart/mixed; boundary="aAbBcCdDv1234567890VxXyYzZ"`, f, ccm.Limits{})
		if err != nil {
			return err
		}
		text, err := m.Text()
		if err != nil {
			return err
		}
		if string(m.Source) != u.Owner || m.ID != "{"+strings.Trim(u.Name, "{}")+"}" {
			return errNotForThisToken
		}
		if err := errors.Join(l.asked("uploaded"), l.sender(m, auth.Claims{})); err != nil {
			return err
		}
		_, err = l.answer(m, text)
		return err
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.uploads = s
}

// incoming answers BITS_POST.
func (l *lab) incoming(w http.ResponseWriter, r *http.Request, path string, c auth.Claims) error {
	if l.uploads == nil {
		return cmg.Refuse(http.StatusNotImplemented, "CMGMP_Uploads_Off", "no uploads", nil)
	}
	if err := l.asked("packet " + r.Header.Get(bits.HeaderPacketType)); err != nil {
		return err
	}
	id := cmg.DeviceID(r.Header.Get(ccm.HeaderClientID))
	l.mu.Lock()
	d, ok := l.devices[id]
	l.mu.Unlock()
	if !ok || c.Kind != "" && c.Device != id {
		return errNotForThisToken
	}
	key, err := ccm.SigningKey(d.Signing)
	if err != nil {
		return err
	}
	if err := errors.Join(ccm.VerifyText(key, string(id), r.Header.Get(ccm.HeaderClientIDSignature)),
		ccm.VerifyText(key, r.Header.Get(ccm.HeaderTimestamp), r.Header.Get(ccm.HeaderTimestampSignature))); err != nil {
		return err
	}
	return l.uploads.Serve(w, r, bits.Sender{Owner: string(id), Name: strings.TrimPrefix(path, "/CCM_Incoming/")})
}

// largeOne is a report that is too large to be posted, made of the text over
// and over.
func (l *lab) largeOne(a *Agent, text func() string) outgoing {
	r := a.newReport(ccm.ContentInventory)
	action := ccm.ActionDiscovery(l.now())
	action.Description = "Everything"
	r.Action = &action
	for len(r.Instances) < 1500 {
		i := ccm.ReportedInstance{Content: "New", Namespace: `\\.\root`, ParentClass: "X", Instance: ccm.Instance{Class: "X"}}
		i.Properties = []ccm.Property{{Name: "Name", Value: text()}}
		r.Instances = append(r.Instances, i)
	}
	return outgoing{Endpoint: ccm.EndpointDiscovery, Body: r.XML()}
}

// randomText does not compress well, plainText does.
func randomText() string {
	b := make([]byte, 750)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func plainText() string { return strings.Repeat("x", 1500) }

// everything counts the large reports that have arrived.
func (l *lab) everything() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.reports {
		if r.Kind() == "Everything" {
			n++
		}
	}
	return n
}

// TestLargeReport: a large report goes by BITS. An agent that is ended in the
// middle goes on where it was, with a token of its own time.
func TestLargeReport(t *testing.T) {
	l := newLab(t)
	l.takeUploads()
	c := l.config(t.TempDir())
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	o := l.largeOne(a, randomText)
	if len(o.Body) <= largeReport {
		t.Fatalf("%d characters are no large report", len(o.Body))
	}
	a.queue(o)
	if err := a.save(); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	l.setRefuse(func(what string) error {
		if what == "packet Fragment" && n.Add(1) > 1 {
			return cmg.ErrUnavailable
		}
		return nil
	})
	if _, err = l.pass(c); err == nil || l.everything() != 0 {
		t.Fatalf("an upload that nobody takes: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(c.StateDir, "uploads"))
	if err != nil || len(left) != 2 {
		t.Fatalf("kept for later: %v, %v", left, err)
	}
	l.setRefuse(func(string) error { return nil })
	l.forget()
	l.wait(9 * time.Hour) // the session token has ended meanwhile
	if a, err = l.pass(c); err != nil || len(a.state.Outbox) != 0 {
		t.Fatalf("%v, %d waiting", err, len(a.state.Outbox))
	}
	if l.everything() != 1 || l.count("packet Create-Session") != 0 || l.count("packet Close-Session") != 1 {
		t.Errorf("%d reports, asked for %v", l.everything(), l.seen)
	}
	if left, err = os.ReadDir(filepath.Join(c.StateDir, "uploads")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLargeReportByCertificate has a proof that names no device; the headers do.
func TestLargeReportByCertificate(t *testing.T) {
	l := newLab(t)
	l.takeUploads()
	c := l.config(t.TempDir())
	cert, err := l.authority.Issue(auth.CertRequest{Name: "PC1", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	c.ClientCertificate, c.ClientKey, c.RegistrationTokenFile = l.file("client.pem"), l.file("client.key"), ""
	if err := cert.Save(c.ClientCertificate, c.ClientKey); err != nil {
		t.Fatal(err)
	}
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	a.queue(l.largeOne(a, plainText))
	if err := a.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.pass(c); err != nil || l.everything() != 1 {
		t.Errorf("%v, %d reports", err, l.everything())
	}
}

// TestLargeReportPosted: where no uploads are taken it is posted; and what is
// refused for good is not sent for ever.
func TestLargeReportPosted(t *testing.T) {
	l := newLab(t)
	c := l.config(t.TempDir())
	a, err := l.pass(c)
	if err != nil {
		t.Fatal(err)
	}
	a.queue(l.largeOne(a, plainText))
	if err := a.save(); err != nil {
		t.Fatal(err)
	}
	if a, err = l.pass(c); err != nil || l.everything() != 1 || len(a.state.Outbox) != 0 {
		t.Fatalf("%v, %d reports", err, l.everything())
	}
	l.takeUploads()
	l.setRefuse(func(what string) error {
		if what == "uploaded" {
			return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "not so", nil)
		}
		return nil
	})
	a.queue(l.largeOne(a, plainText))
	if err := a.save(); err != nil {
		t.Fatal(err)
	}
	if a, err = l.pass(c); err == nil || !strings.Contains(err.Error(), "CMGMP_Bad_Request") || len(a.state.Outbox) != 0 {
		t.Errorf("%v, %d waiting", err, len(a.state.Outbox))
	}
}
