package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vocabulary "github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	database "github.com/opencmg/cmg/site"
)

// fleetSize is how many clients wait: 1,000, or CMG_NOTIFY_CLIENTS.
func fleetSize(t *testing.T) int {
	text := os.Getenv("CMG_NOTIFY_CLIENTS")
	if text == "" {
		return 1000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CMG_NOTIFY_CLIENTS %q is not a number of clients", text)
	}
	return n
}

// enroll makes devices in the site's database and gives a session token of
// each: to register thousands over the wire would take most of the time.
func (l *lab) enroll(n int) (tokens []string) {
	l.t.Helper()
	ctx := context.Background()
	keys, err := auth.LoadKeyring(filepath.Join(l.dir, "site", "keys", "tokens.jwks"))
	if err != nil {
		l.t.Fatal(err)
	}
	db, err := database.Open(ctx, filepath.Join(l.dir, "site", "site.db"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	now := time.Now().Truncate(time.Second)
	for i := range n {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			l.t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), NotAfter: now.Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			l.t.Fatal(err)
		}
		d, err := db.Register(ctx, vocabulary.Device{Name: fmt.Sprintf("FLEET-%d", i), Certificate: der, Approval: vocabulary.Approved, Proof: vocabulary.ProofToken}, "")
		if err != nil {
			l.t.Fatal(err)
		}
		token, err := keys.Issue(auth.Claims{Kind: auth.TokenSession, Site: "LAB", ID: vocabulary.NewGUID(), Device: d.ID, NotBefore: now.Add(-time.Minute), Expires: now.Add(time.Hour)})
		if err != nil {
			l.t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	return tokens
}

// memory gives what the processes hold, in bytes.
func (l *lab) memory(names ...string) (sum int64) {
	pids := l.pids()
	for _, name := range names {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[name]))
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}

// TestNotifyFleet has many clients wait through gateways, channels and
// connection points, notifies all of them, and counts the answers.
func TestNotifyFleet(t *testing.T) {
	n := fleetSize(t)
	l := startLab(t)
	tokens := l.enroll(n)
	roots, err := os.ReadFile(l.env["CMG_CA"])
	if err != nil {
		t.Fatal(err)
	}
	settings := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "gw.cmg.test", MinVersion: tls.VersionTLS13}
	settings.RootCAs.AppendCertsFromPEM(roots)
	hops := [][]string{{"gateway-1", "gateway-2"}, {"connection-point-1", "connection-point-2"}, {"management-point-1"}}
	var before []int64
	for _, h := range hops {
		before = append(before, l.memory(h...))
	}

	path := strings.TrimPrefix(l.env["CMG_MP_SERVER"], l.env["CMG_URL"]) + "/bgb/handler.ashx?RequestType=Continue"
	var told atomic.Int64
	var clients sync.WaitGroup
	dialling := make(chan struct{}, 64) // at once: handshakes are not what is measured
	for _, token := range tokens {
		clients.Go(func() {
			dialling <- struct{}{}
			c, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.base+43)), settings)
			<-dialling
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			const body = `<BgbRequestMessage RequestType="Continue"/>`
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: gw.cmg.test\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", path, token, len(body), body)
			c.SetReadDeadline(time.Now().Add(10 * time.Minute)) // only ends a story that hangs
			r, err := http.ReadResponse(bufio.NewReaderSize(c, 1024), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			text, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != 200 || strings.Count(string(text), "<BgbPushMessage ") != 1 {
				t.Errorf("answered %s %q, %v", r.Status, text, err)
				return
			}
			told.Add(1)
		})
	}
	counts := func() (s struct {
		Notification struct {
			Waiting int `json:"waiting"`
		} `json:"notification"`
	}, err error) {
		return s, l.status("management-point-1", &s)
	}
	most := n + 3 // the lab's own agents wait too
	l.until("all wait", func() error {
		s, err := counts()
		if err == nil && s.Notification.Waiting < most {
			err = fmt.Errorf("%d wait, of %d", s.Notification.Waiting, most)
		}
		return err
	})
	for i, h := range hops {
		t.Logf("%s: %.1f KiB resident for each client", strings.Join(h, ", "), float64(l.memory(h...)-before[i])/float64(n)/1024)
	}
	began := time.Now()
	must(t, "device", "notify", "--all", "--site", filepath.Join(l.dir, "site"))
	clients.Wait()
	t.Logf("%d of %d clients were told %v after the command was begun", told.Load(), n, time.Since(began).Round(time.Millisecond))
	if told.Load() != int64(n) {
		t.Errorf("%d of %d were told", told.Load(), n)
	}
}
