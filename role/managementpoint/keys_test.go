package managementpoint

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// manyKeys makes RSA keys in pairs of few primes: to make a thousand honest
// ones would take minutes. They are of use in a test only.
func manyKeys(t *testing.T, n int) (keys []*rsa.PrivateKey) {
	t.Helper()
	e := big.NewInt(65537)
	one := big.NewInt(1)
	var primes []*big.Int
	for len(primes)*(len(primes)-1)/2 < n {
		p := must(rand.Prime(rand.Reader, 1024))(t)
		if new(big.Int).GCD(nil, nil, e, new(big.Int).Sub(p, one)).Cmp(one) == 0 {
			primes = append(primes, p)
		}
	}
	for i := range primes {
		for j := range i {
			if len(keys) == n {
				return keys
			}
			p, q := primes[i], primes[j]
			phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
			k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: new(big.Int).ModInverse(e, phi), Primes: []*big.Int{p, q}}
			k.Precompute()
			if err := k.Validate(); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
		}
	}
	return keys
}

// TestRollLosesNobody rolls the signing key under many agents at a real
// management point: whatever each had keeps its value, and each gets new
// tokens before, while and after the new key begins to sign: a hundred agents,
// with CMG_LONG a thousand.
func TestRollLosesNobody(t *testing.T) {
	many := 100
	if os.Getenv("CMG_LONG") != "" {
		many = 1000
	}
	l := newLab(t)
	agents := make([]*agent, many)
	token := l.registrationToken("bulk", 0)
	for i, key := range manyKeys(t, many) {
		agents[i] = &agent{lab: l, key: key, cert: must(ccm.SelfSign(key, l.now()))(t)}
	}
	// each does something for every agent, a few at once.
	each := func(what string, f func(a *agent) error) {
		t.Helper()
		var wg sync.WaitGroup
		work, lost := make(chan *agent), make(chan error, many)
		for range 8 {
			wg.Go(func() {
				for a := range work {
					if err := f(a); err != nil {
						lost <- err
					}
				}
			})
		}
		for _, a := range agents {
			work <- a
		}
		close(work)
		wg.Wait()
		if n := len(lost); n > 0 {
			t.Fatalf("%s: %d of %d agents are lost, the first: %v", what, n, many, <-lost)
		}
	}
	sessions := map[*agent]string{}
	var mu sync.Mutex
	trust := func() *auth.Trust {
		return must(auth.NewTrust(must(l.site.PublicationState(t.Context()))(t).Publication()))(t)
	}
	verify := func(trust *auth.Trust, token string) error {
		_, err := trust.Verify(auth.Evidence{Authorization: "Bearer " + token}, []cmg.Proof{cmg.ProofToken}, l.now())
		return err
	}
	open := func(trust *auth.Trust) func(a *agent) error {
		return func(a *agent) error {
			by, err := trust.Verify(auth.Evidence{Authorization: "Bearer " + a.deviceToken}, []cmg.Proof{cmg.ProofToken}, l.now())
			if err != nil {
				return fmt.Errorf("device token: %w", err)
			}
			session, _, err := a.exchange(by, l.now())
			mu.Lock()
			sessions[a] = session
			mu.Unlock()
			return err
		}
	}
	each("register", func(a *agent) error { return a.register(token) })
	published := trust()
	each("open a session", open(published))
	first := l.keyring.SignerID(l.now())

	// As cmg token roll-keys does it: published, then written.
	rolled, _, err := l.keyring.Roll(l.now(), l.now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.site.AddTokenKeys(t.Context(), rolled.PublicKeys()); err != nil {
		t.Fatal(err)
	}
	if err := rolled.Replace(l.cfg.TokenKeys); err != nil {
		t.Fatal(err)
	}
	if err := l.point.reload.Reload("rolled"); err != nil {
		t.Fatal(err)
	}
	l.clock.Add(10)
	each("open a session before the new key signs, at a gateway that does not know it", open(published))
	each("show it there", func(a *agent) error { return verify(published, sessions[a]) })
	old := sessions
	sessions = map[*agent]string{}
	l.clock.Add(60)
	if signs := l.point.live.Load().keyring.SignerID(l.now()); signs == first {
		t.Fatal("the old key signs still")
	}
	published = trust()
	each("show a session of the old key", func(a *agent) error { return verify(published, old[a]) })
	each("open a session with a device token of the old key", open(published))
	each("show a session of the new key", func(a *agent) error { return verify(published, sessions[a]) })
	l.clock.Store(int64(31 * day / time.Second))
	published = trust()
	each("renew the device token of the old key", func(a *agent) error {
		before := a.deviceToken
		if _, renewed, err := a.open(); err != nil || !renewed {
			return fmt.Errorf("renewed %v: %w", renewed, err)
		}
		if a.deviceToken == before {
			return fmt.Errorf("the device token of %s is the same", a.id)
		}
		return verify(published, a.deviceToken)
	})
	t.Logf("%d agents, none lost", many)
}

// A keyring that cannot be read leaves the keys as they are, and is told of.
func TestBrokenKeyringIsTold(t *testing.T) {
	l := newLab(t)
	good := l.point.live.Load()
	if err := os.WriteFile(l.cfg.TokenKeys, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.point.reload.Reload("rolled"); err == nil || l.point.live.Load() != good {
		t.Errorf("a broken keyring: %v", err)
	}
	if err := os.Remove(l.cfg.TokenKeys); err != nil {
		t.Fatal(err)
	}
	if err := l.point.reload.Reload("rolled"); err == nil || l.point.live.Load() != good {
		t.Errorf("no keyring: %v", err)
	}
}

func TestAuditHead(t *testing.T) {
	l := newLab(t)
	l.cfg.AuditHead = l.file("audit.head")
	l.end()
	l.start()
	a := l.registered()
	if err := l.site.Block(t.Context(), site.BlockDevice, string(a.id), ""); err != nil {
		t.Fatal(err)
	}
	l.end() // the last head is kept when it ends
	var head site.AuditHead
	text := strings.TrimSpace(string(must(os.ReadFile(l.file("audit.head")))(t)))
	if err := auth.ReadStatement(l.gateway, AuditHeadType, text, l.now(), &head); err != nil {
		t.Fatal(err)
	}
	now := must(l.site.AuditHead(t.Context()))(t)
	if head.Seq != now.Seq || head.Hash != now.Hash || head.Site != "LAB" {
		t.Errorf("kept %+v, the log ends at %+v", head, now)
	}
	if n, err := l.site.VerifyAudit(t.Context(), head); err != nil || n != head.Seq {
		t.Errorf("verify: %d, %v", n, err)
	}
}
