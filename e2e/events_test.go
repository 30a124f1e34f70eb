package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestEvents reads an event stream through both roles, over each version of
// HTTP. The server sends an event only when the client has read the one
// before: one that is held back on the way would end the story. Then the
// client leaves while nothing is said, and the server hears of it.
func TestEvents(t *testing.T) {
	next, left := make(chan int), make(chan struct{}, 2)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x" {
			return // the lab's own walk looks whether there is a server
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		out := http.NewResponseController(w)
		out.Flush()
		for {
			select {
			case n := <-next:
				fmt.Fprintf(w, "data: %d\n\n", n)
				out.Flush()
			case <-r.Context().Done():
				left <- struct{}{}
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	l := startLab(t, "--map", "/events="+s.URL)
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			c := l.client(true)
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
			ctx, leave := context.WithTimeout(t.Context(), 50*time.Second)
			defer leave()
			req, err := http.NewRequestWithContext(ctx, "GET", l.env["CMG_URL"]+"/events/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || (resp.ProtoMajor == 2) != h2 {
				t.Fatalf("%s %s %v", resp.Proto, resp.Status, resp.Header)
			}
			in := bufio.NewReader(resp.Body)
			for n := range 20 {
				next <- n
				if n%5 == 4 {
					time.Sleep(50 * time.Millisecond) // long enough to be parked at the gateway
				}
				line, err := in.ReadString('\n')
				if want := fmt.Sprintf("data: %d\n", n); line != want || err != nil {
					t.Fatalf("got %q, %v; want %q", line, err, want)
				}
				in.ReadString('\n')
			}
			leave()
			select {
			case <-left:
			case <-time.After(time.Minute):
				t.Error("the server goes on for a client that has left")
			}
		})
	}
}
