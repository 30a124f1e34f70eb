package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg/bits"
)

// uploadSize is what the upload story moves: CMG_LONG=1 makes it a
// gibibyte.
func uploadSize() int64 {
	if os.Getenv("CMG_LONG") != "" {
		return 1 << 30
	}
	return 64 << 20
}

// pattern is a file of any size: each byte depends on where it stands.
type pattern int64

func (p pattern) ReadAt(b []byte, at int64) (int, error) {
	n := int(max(0, min(int64(len(b)), int64(p)-at)))
	for i := range n {
		x := uint64(at+int64(i)) * 0x9E3779B97F4A7C15
		b[i] = byte(x>>56) ^ byte(x>>32)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// A cutConn ends its connection when so many bytes in all were written to all
// of a client's connections.
type cutConn struct {
	net.Conn
	c *cuts
}

type cuts struct {
	mu      sync.Mutex
	sent    int64
	offsets []int64
	done    int
}

var errCut = errors.New("cut")

func (c cutConn) Write(b []byte) (int, error) {
	c.c.mu.Lock()
	c.c.sent += int64(len(b))
	cut := len(c.c.offsets) > 0 && c.c.sent >= c.c.offsets[0]
	if cut {
		c.c.offsets = c.c.offsets[1:]
		c.c.done++
	}
	c.c.mu.Unlock()
	if cut {
		c.Conn.Close()
		return 0, errCut
	}
	return c.Conn.Write(b)
}

// TestUpload uploads a file through gateway and connection point. The client
// is cut off at ten random offsets, and meanwhile the management point and a
// connection point are killed and come back. The file arrives once, and is
// the same.
func TestUpload(t *testing.T) {
	l := startLab(t)
	size := uploadSize()
	c := &cuts{}
	for i := range int64(10) {
		c.offsets = append(c.offsets, size/11*(i+1)-rand.Int64N(size/22))
	}
	client := l.client(false)
	client.Timeout = 0
	tr := client.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return cutConn{conn, c}, err
	}
	var sessions []string
	killed := map[string]bool{}
	kill := func(name string) {
		if !killed[name] {
			killed[name] = true
			l.kill(name)
			l.again(name)
		}
	}
	up := bits.Client{Tries: 60, Wait: 50 * time.Millisecond, Longest: time.Second,
		Do: func(r *http.Request) (*http.Response, error) {
			r.Header.Set("Authorization", "Bearer "+l.env["CMG_TOKEN"])
			return client.Do(r)
		},
		Progress: func(received, _ int64) {
			switch {
			case received > size*2/3:
				kill("connection-point-1")
			case received > size/3:
				kill("management-point-1")
			}
		}}
	began := time.Now()
	err := up.Upload(t.Context(), bits.Source{URL: l.env["CMG_URL"] + l.env["CMG_MP_SERVER"] + "/CCM_Incoming/%7BA%7D", Size: size, ReaderAt: pattern(size),
		Begun: func(s string) error { sessions = append(sessions, s); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %s, %d cuts, %d bytes sent twice", size>>20, time.Since(began).Round(time.Millisecond), c.done, c.sent-size)
	if len(sessions) != 1 || c.done != 10 || len(killed) != 2 {
		t.Errorf("sessions %v, %d cuts, killed %v", sessions, c.done, killed)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(pattern(size), 0, size)); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%X", h.Sum(nil))
	var uploads []struct {
		ID, Device, Name, SHA256 string
		Size                     int64
	}
	if err := json.Unmarshal([]byte(must(t, "upload", "list", "--site", filepath.Join(l.dir, "site"), "--json")), &uploads); err != nil {
		t.Fatal(err)
	}
	if len(uploads) != 1 || uploads[0].SHA256 != want || uploads[0].Size != size || uploads[0].Name != "{A}" || uploads[0].Device == "" {
		t.Fatalf("uploads %+v, want %s", uploads, want)
	}
	f, err := os.Open(filepath.Join(l.dir, "state", "management-point-1", "uploads", "kept", uploads[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h.Reset()
	if _, err := io.Copy(h, f); err != nil || fmt.Sprintf("%X", h.Sum(nil)) != want {
		t.Errorf("the file kept is another one: %v", err)
	}
	// What does not fit through the route is refused at the edge, and the
	// client sends less at once.
	up.Fragment, up.Progress = 48<<20, nil
	if err := up.Upload(t.Context(), bits.Source{URL: l.env["CMG_URL"] + l.env["CMG_MP_SERVER"] + "/CCM_Incoming/%7BB%7D", Size: 50 << 20, ReaderAt: pattern(50 << 20)}); err != nil {
		t.Errorf("large fragments: %v", err)
	}
}

// TestDistribution reads a package through the gateway with programs that
// others have written.
func TestDistribution(t *testing.T) {
	for _, program := range []string{"curl", "rclone", "bash"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED: this story needs %s: %v", program, err)
		}
	}
	l := startLab(t)
	input := digests(t, filepath.Join(l.dir, "input"))
	base := l.env["CMG_MP_SERVER"] + "/SMS_DP_SMSPKG$"
	to := t.TempDir()
	conf := filepath.Join(to, "rclone.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rclone := func(args ...string) string {
		t.Helper()
		c := exec.Command("rclone", append(args, "--ca-cert", l.env["CMG_CA"])...)
		c.Env = append(os.Environ(), "RCLONE_CONFIG="+conf, "RCLONE_WEBDAV_VENDOR=other", "RCLONE_WEBDAV_BEARER_TOKEN="+l.env["CMG_TOKEN"],
			fmt.Sprintf("RCLONE_WEBDAV_URL=https://localhost:%d%s", l.base+43, base))
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("rclone %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := rclone("lsf", ":webdav:"); !strings.Contains(out, "DataLib/\n") || !strings.Contains(out, l.env["CMG_PACKAGE"]+"/\n") {
		t.Errorf("rclone lists\n%s", out)
	}
	rclone("copy", ":webdav:"+l.env["CMG_PACKAGE"], filepath.Join(to, "copy"))
	got := digests(t, filepath.Join(to, "copy"))
	for name, sum := range input {
		if got[name] != sum {
			t.Errorf("%s: %s, want %s", name, got[name], sum)
		}
	}
	if len(input) == 0 || len(got) != len(input) {
		t.Errorf("%d files of %d", len(got), len(input))
	}
	const certificate, token = ` --cert "$CMG_CLIENT_CERT" --key "$CMG_CLIENT_KEY" `, ` -H "Authorization: Bearer $CMG_TOKEN" `
	file := `/$CMG_PACKAGE/sccm?/folder%201/file-01.bin"`
	for name, args := range map[string]string{
		"certificate": certificate + ` -r 0-99 "$CMG_URL$CMG_MP_MUTUAL/SMS_DP_SMSPKG\$` + file,
		"token":       token + ` -r 0-99 "$CMG_URL$CMG_MP_SERVER/SMS_DP_SMSPKG\$` + file,
		"token path":  token + ` -r 0-99 "$CMG_URL$CMG_MP_SERVER/CCMTOKENAUTH_SMS_DP_SMSPKG\$` + file,
	} {
		if head, body := l.curl(t, args); !strings.Contains(head, " 206") || len(body) != 100 {
			t.Errorf("%s: %s, %d bytes", name, head, len(body))
		}
	}
	for name, c := range map[string]struct{ args, want string }{
		"nobody":           {` "$CMG_URL$CMG_MP_SERVER/SMS_DP_SMSPKG\$` + file, "401 CMGService_Authentication_Required"},
		"writing":          {token + ` -T /dev/null "$CMG_URL$CMG_MP_SERVER/SMS_DP_SMSPKG\$/x"`, "405 CMGService_Method_Not_Allowed"},
		"no certificate's": {token + ` "$CMG_URL$CMG_MP_SERVER/NOCERT_SMS_DP_SMSPKG\$` + file, "403 CMGService_Not_Published"},
	} {
		if head, _ := l.curl(t, c.args); !strings.Contains(head, c.want) {
			t.Errorf("%s: %s", name, head)
		}
	}
}
