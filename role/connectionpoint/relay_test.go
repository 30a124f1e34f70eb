package connectionpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// failure wants a reply to have ended with a code.
func failure(t testing.TB, what string, a reply, code channel.Code) *channel.StreamError {
	t.Helper()
	var e *channel.StreamError
	if !errors.As(a.err, &e) || e.Code != code {
		t.Errorf("%s: %d, %v; want %v", what, a.status, a.err, code)
		return &channel.StreamError{}
	}
	return e
}

func TestMapping(t *testing.T) {
	t.Parallel()
	a, b := server(t, echo).URL, server(t, func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		w.Header().Set("X-Host", r.Host)
	}).URL
	g, r := start(t, "/CCM_Proxy_MutualAuth/1/SMS_MP", a+"/SMS_MP", "/CCM_Proxy_MutualAuth/1", a+"/all/", "/other", b, "/other/Deep/er", b+"/x%20y/z", "/slash", a+"/")
	for target, want := range map[string]struct{ host, target string }{
		"/CCM_Proxy_MutualAuth/1/SMS_MP/.sms_aut?MPLIST": {a, "/SMS_MP/.sms_aut?MPLIST"},
		"/ccm_proxy_mutualauth/1/sms_mp/.SMS_AUT?MPLIST": {a, "/SMS_MP/.SMS_AUT?MPLIST"},
		"/CCM_Proxy_MutualAuth/1/SMS_MP":                 {a, "/SMS_MP"},
		"/CCM_Proxy_MutualAuth/1/SMS_MP?a/b":             {a, "/SMS_MP?a/b"},
		"/CCM_Proxy_MutualAuth/1/SMS_MPx/y":              {a, "/all/SMS_MPx/y"},
		"/CCM_Proxy_MutualAuth/1":                        {a, "/all"},
		"/other":                                         {b, "/"},
		"/other?q":                                       {b, "/?q"},
		"/other/":                                        {b, "/"},
		"/other/a%20b;c/%7bd%7D?e=%2f..":                 {b, "/a%20b;c/%7bd%7D?e=%2f.."},
		"/other/deep":                                    {b, "/deep"},
		"/OTHER/DEEP/ER/f":                               {b, "/x%20y/z/f"},
		"/slash/f":                                       {a, "/f"},
	} {
		got := g.do("GET", target, nil)
		if got.status != 200 || got.fields.Get("X-Target") != want.target || "http://"+got.fields.Get("X-Host") != want.host {
			t.Errorf("%s led to %s%s (%d, %v), want %s", target, got.fields.Get("X-Host"), got.fields.Get("X-Target"), got.status, got.err, want)
		}
	}
	for _, target := range []string{"/", "/CCM_Proxy_MutualAuth", "/CCM_Proxy_MutualAuth/10/SMS_MP", "/othe", "/otherwise"} {
		if e := failure(t, target, g.do("GET", target, nil), channel.CodeUnreachable); !e.Untouched {
			t.Errorf("%s: it may have been touched", target)
		}
	}
	eventually(t, "failures are counted", func() bool { return r.p.failed.Load() == 5 })
}

// TestCrookedPath has a gateway that is not to be trusted ask for a path that
// climbs out of its mapping.
func TestCrookedPath(t *testing.T) {
	t.Parallel()
	g, _ := start(t, "/pub", server(t, echo).URL+"/deep/base")
	for _, target := range []string{"/pub/../../secret", "/pub/%2e%2e/x", "/pub/./x", "/pub/%2f", "/pub/..;/x", "/pub/\\..", "/pub/%zz", "/pub/%41"} {
		q := h1.Request{Method: []byte("GET"), Target: []byte(target), Host: []byte("h")}
		failure(t, target, finish(g.raise(&q, nil, true)), channel.CodeProtocol)
	}
	for _, head := range []string{"", "junk", "\x00\x01G\x01/\x01h\x00\x00more"} {
		g.mu.Lock()
		s := g.sessions[0]
		g.mu.Unlock()
		failure(t, head, finish(must[*channel.Stream](t)(s.Open([]byte(head), nil, true))), channel.CodeProtocol)
	}
}

// TestFields shows what a server inside gets, and what comes back.
func TestFields(t *testing.T) {
	t.Parallel()
	var s = server(t, func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		w.Header().Set("Connection", "X-Hop")
	})
	g, _ := start(t, "/pub", s.URL)
	a := g.do("CCM_POST", "/pub/request", []byte("body"), "Authorization", "Bearer x.y.z", "Range", "bytes=0-1,5-", "CMG-Caller", "signed", "X-Forwarded-For", "192.0.2.7", "CCMClientID", "GUID:x")
	for name, want := range map[string]string{"Authorization": "Bearer x.y.z", "Range": "bytes=0-1,5-", "Cmg-Caller": "signed", "X-Forwarded-For": "192.0.2.7", "Ccmclientid": "GUID:x"} {
		if got := a.fields.Get("X-Got-" + name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if a.fields.Get("X-Method") != "CCM_POST" || string(a.body) != "body" || a.fields.Get("Date") == "" {
		t.Errorf("%+v", a)
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	address := byHand(t, func(w *wire) {
		for {
			method, line, err := w.next()
			if err != nil {
				return
			}
			_ = method
			w.say("HTTP/1.1 " + line + "\r\nContent-Length: 2\r\nX-By: server\r\n\r\nhi")
		}
	})
	g, _ := start(t, "/pub", "http://"+address)
	for line, want := range map[string]string{
		"403 Client certificate required": "CMGConnector_Clientcertificaterequired",
		"403 Forbidden":                   "CMGConnector_Forbidden",
		"401 Unauthorized":                "CMGConnector_Unauthorized",
		"500 Internal Server Error":       "CMGConnector_InternalServerError",
		"404":                             "CMGConnector_NotFound",
		"404 ":                            "CMGConnector_NotFound",
		"599   odd \t words ":             "CMGConnector_oddwords",
		"499":                             "CMGConnector_",
		"200":                             "OK",
		"200 Fine indeed":                 "Fine indeed",
		"302 Found":                       "Found",
	} {
		a := g.do("POST", "/pub", []byte(line))
		if fmt.Sprint(a.status) != line[:3] || a.reason != want || string(a.body) != "hi" || a.fields.Get("X-By") != "server" || a.err != nil {
			t.Errorf("%q: %d %q %q %v, want %q", line, a.status, a.reason, a.body, a.err, want)
		}
	}
}

// TestBodies sends and fetches bodies of all sizes, of known length and not.
func TestBodies(t *testing.T) {
	t.Parallel()
	big := noise(5<<20 + 3)
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		if r.URL.RawQuery == "chunked" {
			w.(http.Flusher).Flush()
		}
		w.Write(b)
	})
	g, _ := start(t, "/pub", s.URL)
	for _, n := range []int{0, 1, channel.MaxInline, channel.MaxInline + 1, 100 << 10, len(big)} {
		for _, down := range []string{"", "?chunked"} {
			a := g.do("POST", "/pub"+down, big[:n])
			if a.status != 200 || a.err != nil || !bytes.Equal(a.body, big[:n]) || a.fields.Get("X-Length") != fmt.Sprint(n) {
				t.Errorf("%d bytes%s: %d, %d bytes, length %s, %v", n, down, a.status, len(a.body), a.fields.Get("X-Length"), a.err)
			}
			st := g.begin("POST", "/pub"+down, h1.Chunked, big[:min(n, 10)], false)
			st.WriteEnd(big[min(n, 10):n])
			a = finish(st)
			if a.status != 200 || a.err != nil || !bytes.Equal(a.body, big[:n]) || a.fields.Get("X-Length") != "-1" {
				t.Errorf("%d bytes%s, chunked: %d, %d bytes, length %s, %v", n, down, a.status, len(a.body), a.fields.Get("X-Length"), a.err)
			}
		}
	}
}

// TestWithoutBody asks for answers that have none, on one connection.
func TestWithoutBody(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "1234")
		}
	})
	g, _ := start(t, "/pub", s.URL)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"HEAD", "/long", 200}, {"GET", "/204", 204}, {"GET", "/304", 304}, {"HEAD", "/long", 200}} {
		if a := g.do(c.method, "/pub"+c.path, nil); a.status != c.status || len(a.body) != 0 || a.err != nil || a.fields.Get("ETag") != `"e"` {
			t.Errorf("%s %s: %+v", c.method, c.path, a)
		}
	}
}

// TestLies has a gateway send another body than its head says.
func TestLies(t *testing.T) {
	t.Parallel()
	g, _ := start(t, "/pub", server(t, echo).URL)
	for name, send := range map[string]func() *channel.Stream{
		"more inline": func() *channel.Stream { return g.begin("POST", "/pub", 3, []byte("four"), true) },
		"less inline": func() *channel.Stream { return g.begin("POST", "/pub", 5, []byte("four"), true) },
		"more": func() *channel.Stream {
			st := g.begin("POST", "/pub", 5, []byte("four"), false)
			st.WriteEnd([]byte("GET / HTTP/1.1\r\n\r\n"))
			return st
		},
		"less": func() *channel.Stream {
			st := g.begin("POST", "/pub", 50, []byte("four"), false)
			st.WriteEnd([]byte("five"))
			return st
		},
	} {
		began := time.Now()
		if a := finish(send()); a.err == nil || a.status != 0 {
			t.Errorf("%s: %d %q", name, a.status, a.body)
		}
		if d := time.Since(began); d > patience/2 {
			t.Errorf("%s: it took %v", name, d)
		}
	}
	if a := g.do("POST", "/pub", []byte("fine")); string(a.body) != "fine" {
		t.Errorf("the next request: %+v", a)
	}
}

// TestInterim passes over what comes before an answer.
func TestInterim(t *testing.T) {
	t.Parallel()
	address := byHand(t, func(w *wire) {
		for {
			_, body, err := w.next()
			if err != nil {
				return
			}
			w.say(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 3))
			w.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\n" + body + "\r\n0\r\nTrailer: dropped\r\n\r\n")
		}
	})
	g, _ := start(t, "/pub", "http://"+address)
	for range 3 {
		if a := g.do("POST", "/pub", []byte("abc")); a.status != 200 || string(a.body) != "abc" || a.fields.Get("Link") != "" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
}
