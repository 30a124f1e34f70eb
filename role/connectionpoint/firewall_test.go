//go:build linux

package connectionpoint

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const insideNamespace = "CMG_TEST_IN_NAMESPACE"

// firewalled runs the test again in a network namespace of its own, where it
// may do to the network what it likes. It says whether this is there.
func firewalled(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	unshare, nft := program(t, "unshare", "util-linux"), program(t, "nft", "nftables")
	program(t, "ip", "iproute2")
	if out, err := exec.Command(unshare, "-n", "sh", "-c", "ip link set lo up && "+nft+" add table inet probe").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" && os.Getuid() == 0 {
			t.Fatalf("no network namespace with a firewall: %v: %s", err, out)
		}
		t.Skipf("SKIPPED, AND IT PROVES NOTHING: no network namespace with a firewall: %v: %s", err, out)
	}
	cmd := exec.Command(unshare, "-n", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "100s")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v", err)
	}
	return false
}

func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command(program(t, "nft", "nftables"), "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// TestFirewall closes the field's TCP ports in each way a firewall can: channels
// come by HTTPS on 10124 and 10125 and say why, serve requests meanwhile, and
// go back to TCP once it is open, without one request lost.
func TestFirewall(t *testing.T) {
	if !firewalled(t) {
		return
	}
	for _, f := range []struct{ verdict, why string }{
		{"drop", "timeout"},
		{"reject with tcp reset", "refused"},
		{"reject with icmpx type admin-prohibited", ""},
	} {
		t.Run(f.verdict, func(t *testing.T) {
			d := newDoor(t)
			nft(t, fmt.Sprintf("table inet fw\ndelete table inet fw\ntable inet fw { chain in { type filter hook input priority 0; tcp dport 10140-10155 %s; }; }\n", f.verdict))
			for i, name := range []string{"gw-1", "gw-2"} {
				d.listen(transportTCP, fmt.Sprintf("127.0.0.1:%d", portTCPFirst+i), name)
				d.listen(transportHTTPS, fmt.Sprintf("127.0.0.1:%d", portHTTPSFirst+i), name)
			}
			c := d.config(Gateway{Service: "127.0.0.1", Instances: 2, Mode: modeMultiPort})
			c.Connections, c.BetterEvery = 2, time.Second
			p := d.through(c)
			by := func(transport string) func() bool {
				return func() bool {
					return cmp.Equal(d.held(), map[arrival]int{{"gw-1", transport}: 2, {"gw-2", transport}: 2})
				}
			}
			soon(t, "all channels by HTTPS", 15*time.Second, by(transportHTTPS))
			var r map[string]any
			soon(t, "the status is up", 2*time.Second, func() bool { r = shown(p); return r["state"] == "up" })
			if why := fmt.Sprint(r["instead_of"]); !strings.Contains(why, f.why) || !strings.Contains(why, "10140") {
				t.Errorf("it says %s, want %q", why, f.why)
			}
			stop := d.load(4)
			nft(t, "delete table inet fw\n")
			soon(t, "all channels by TCP", 20*time.Second, by(transportTCP))
			if done, failed := stop(); done == 0 || failed != 0 {
				t.Errorf("%d requests, %d failed", done, failed)
			}
		})
	}
}
