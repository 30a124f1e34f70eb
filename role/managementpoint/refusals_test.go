package managementpoint

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// What a management point refuses, and what connection points report, can be
// asked for by the request's id.
func TestRefusalsAreKept(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	resp, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST&secret=1", caller: a.byDeviceToken()})
	refused(t, err, 403, "CMGMP_Token_Kind")
	id := resp.Header.Get(web.RequestIDHeader)
	var found []cmg.RefusalRecord
	for range 500 {
		if found, err = l.site.Refusal(t.Context(), id); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || len(found) != 1 || found[0].Code != "CMGMP_Token_Kind" || found[0].Hop != "management-point/mp1" {
		t.Fatalf("kept %+v, %v", found, err)
	}
	text, _ := json.Marshal(found)
	for _, want := range []string{string(a.id), "token device", "gw1", "/SMS_MP/.sms_aut"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it does not say %q: %s", want, text)
		}
	}
	if strings.Contains(string(text), "secret") {
		t.Errorf("it holds the query: %s", text)
	}

	report := func(body string, c call) error {
		c.method, c.path, c.body = http.MethodPost, web.RefusalsPath, body
		_, _, err := l.do(c)
		return err
	}
	good := `[{"id":"edge-1","hop":"gateway/gw1","time":"2026-03-01T12:00:00Z","code":"CMGService_Not_Published","status":403,"why":"nothing\u001b is there","facts":[{"name":"from","value":"192.0.2.1"}]}]`
	refused(t, report(good, call{}), 0, "")
	refused(t, report(good, call{}), 0, "") // its answer was lost: the same again
	if rs, err := l.site.Refusal(t.Context(), "edge-1"); err != nil || len(rs) != 1 || rs[0].Why != "nothing  is there" || rs[0].Facts[0].Value != "192.0.2.1" {
		t.Errorf("reported: %+v, %v", rs, err)
	}
	refused(t, report(good, call{client: l.client(l.gateway.Client())}), 403, "CMGMP_Connection_Point_Required")
	refused(t, report(good, call{caller: byCertificate("")}), 403, "CMGMP_Connection_Point_Required")
	refused(t, report("{", call{}), 400, "CMGMP_Bad_Request")
	refused(t, report("["+strings.Repeat("{},", maxRefusals)+"{}]", call{}), 400, "CMGMP_Bad_Request")
	refused(t, report(`"`+strings.Repeat("x", maxReport)+`"`, call{}), 413, "RequestEntityTooLarge")
}

// A connection point that prefers to wait is told of a change when it happens.
func TestMapIsPushed(t *testing.T) {
	l := newLab(t)
	ask := func(etag, prefer string) (status int, applied string) {
		t.Helper()
		h := http.Header{"If-None-Match": {etag}}
		if prefer != "" {
			h.Set("Prefer", prefer)
		}
		resp, _, err := l.do(call{method: "GET", path: "/cmg/v1/map", header: h})
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Preference-Applied")
	}
	_, etag, _, err := l.getMap("", l.cp)
	if err != nil {
		t.Fatal(err)
	}
	if status, applied := ask(etag, ""); status != 304 || applied != "" {
		t.Errorf("without a wish: %d %q", status, applied)
	}
	if status, applied := ask(etag, "wait=1"); status != 304 || applied != "wait=1" {
		t.Errorf("no change within a second: %d %q", status, applied)
	}
	if status, applied := ask("", "wait=30"); status != 200 || applied != "wait=30" {
		t.Errorf("one who has nothing waits: %d %q", status, applied)
	}
	for _, bad := range []string{"wait=-1", "wait=x", "respond-async"} {
		if _, applied := ask(etag, bad); applied != "" {
			t.Errorf("%s was applied as %q", bad, applied)
		}
	}
	pushed := make(chan int, 1)
	go func() {
		status, _ := ask(etag, "wait=30")
		pushed <- status
	}()
	if err := l.site.Block(t.Context(), "certificate", "1f", ""); err != nil {
		t.Fatal(err)
	}
	if status := <-pushed; status != 200 { // else the client's time is over
		t.Errorf("after a change: %d", status)
	}
	_, etag, _, err = l.getMap("", l.cp)
	if err != nil {
		t.Fatal(err)
	}
	before := l.statusOf().Requests["map"]
	go func() {
		status, _ := ask(etag, "wait=30")
		pushed <- status
	}()
	for range 2000 {
		if l.statusOf().Requests["map"] > before { // it waits
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.end() // does not wait for it
	if status := <-pushed; status != 304 {
		t.Errorf("when the management point ends: %d", status)
	}
}
