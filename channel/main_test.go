package channel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair gives two ends of a real connection on loopback, over TLS if asked.
func pair(t testing.TB, secure bool) (outer, inner net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	var acceptErr error
	wg.Go(func() { outer, acceptErr = ln.Accept() })
	inner, err = net.Dial("tcp", ln.Addr().String())
	if wg.Wait(); err != nil || acceptErr != nil {
		t.Fatal(err, acceptErr)
	}
	if secure {
		conf := testTLS(t)
		outer = tls.Server(NewGather(outer, 0), conf)
		inner = tls.Client(NewGather(inner, 128<<10), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	}
	return outer, inner
}

func testTLS(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// sessions runs both ends of a channel until the test ends.
func sessions(t testing.TB, secure bool, out, in Config) (outside, inside *Session) {
	t.Helper()
	a, b := pair(t, secure)
	return run(t, a, b, out, in)
}

func run(t testing.TB, a, b net.Conn, out, in Config) (outside, inside *Session) {
	t.Helper()
	var wg sync.WaitGroup
	var outErr, inErr error
	wg.Go(func() { outside, outErr = Outside(a, out) })
	inside, inErr = Inside(b, in)
	if wg.Wait(); outErr != nil || inErr != nil {
		t.Fatal(outErr, inErr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { outside.Run(ctx) })
	running.Go(func() { inside.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return outside, inside
}

// serve makes a handler that runs each stream in a goroutine of its own, and
// a cleanup that waits for them.
func serve(t testing.TB, f func(*Stream)) func(*Stream) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(st *Stream) { wg.Go(func() { f(st) }) }
}
