package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// seenBy is the certificate that a client gets to see under a name.
func seenBy(t *testing.T, f *Front, name string) (*x509.Certificate, error) {
	t.Helper()
	x, y := net.Pipe()
	defer x.Close()
	defer y.Close()
	go tls.Server(x, f.Settings()).Handshake()
	c := tls.Client(y, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestFrontFollowsItsFiles(t *testing.T) {
	in := inDir(t)
	ca, other := newAuthority(t, "site CA"), newAuthority(t, "other CA")
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	write := func(i Issued, key []byte) {
		t.Helper()
		for name, b := range map[string][]byte{"c.pem": i.CertPEM, "c.key": key} {
			if err := replaceFile(in(name), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	server := func(name string, change func(*CertRequest)) Issued {
		r := CertRequest{Name: name, DNS: []string{name}, Server: true}
		if change != nil {
			change(&r)
		}
		return issue(t, ca, r)
	}
	first, second := server("gw.example.com", nil), server("gw.example.com", nil)
	write(first, first.KeyPEM)
	f := must[*Front](t)(NewFront(FrontConfig{Certificate: in("c.pem"), Key: in("c.key"), Now: now}))
	serves := func(name string, want Issued) {
		t.Helper()
		got, err := seenBy(t, f, name)
		if err != nil || !got.Equal(want.Certificate) {
			t.Errorf("%s meets %v, %v; want %v", name, got, err, want.Certificate.SerialNumber)
		}
	}
	serves("gw.example.com", first)
	serves("GW.Example.COM", first)

	// An open connection goes on while new ones meet the new certificate.
	x, y := net.Pipe()
	conn := tls.Server(x, f.Settings())
	go conn.Handshake()
	client := tls.Client(y, &tls.Config{ServerName: "gw.example.com", InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	write(second, second.KeyPEM)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	serves("gw.example.com", second)
	go conn.Write([]byte("x"))
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Errorf("the open connection broke: %v", err)
	}
	x.Close()
	y.Close()

	// What is not good is refused with the reason, and the old one goes on.
	wrongChain := issue(t, ca, CertRequest{Name: "gw.example.com", DNS: []string{"gw.example.com"}, Server: true})
	wrongChain.CertPEM = append(wrongChain.CertPEM, certificatePEM(other.cert)...)
	future := server("gw.example.com", func(r *CertRequest) { r.NotBefore = now().Add(time.Hour) })
	for _, bad := range []struct {
		name string
		i    Issued
		key  []byte
		say  string
	}{
		{"another key", first, second.KeyPEM, "does not serve for"},
		{"a broken chain", wrongChain, wrongChain.KeyPEM, "broken chain"},
		{"not for servers", issue(t, ca, CertRequest{Name: "x", DNS: []string{"x"}, Client: true}), nil, "not for servers"},
		{"expired", server("gw.example.com", func(r *CertRequest) { r.NotBefore, r.Life = now().Add(-2*day), day }), nil, "expired"},
		{"garbage", Issued{CertPEM: []byte("x")}, []byte("x"), "no PEM certificate"},
		{"not yet valid", future, nil, "not valid before"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if bad.key == nil {
				bad.key = bad.i.KeyPEM
			}
			write(bad.i, bad.key)
			err := f.Reload()
			if err == nil || !strings.Contains(err.Error(), bad.say) || !strings.Contains(f.Status().Problem, bad.say) {
				t.Errorf("got %v, status %+v; want %q", err, f.Status(), bad.say)
			}
			serves("gw.example.com", second)
		})
	}
	// One that was early comes into force by itself.
	ahead.Store(int64(2 * time.Hour))
	if err := f.Reload(); err != nil || f.Status().Problem != "" {
		t.Fatal(err, f.Status())
	}
	serves("gw.example.com", future)

	// A name that only the one before has still meets it.
	renamed := server("new.example.com", nil)
	write(renamed, renamed.KeyPEM)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	serves("new.example.com", renamed)
	serves("GW.example.com", future)
	serves("unknown.example.com", renamed)
	os.Remove(in("c.key"))
	if err := f.Reload(); err == nil {
		t.Error("a key that is gone is no error")
	}
	serves("new.example.com", renamed)
}

func TestFrontAlerts(t *testing.T) {
	for left, want := range map[time.Duration]int{100 * day: -1, 60*day + 1: -1, 60 * day: 60, 31 * day: 60, 30 * day: 30, 14 * day: 14, 8 * day: 14, 7 * day: 7, 2 * day: 7, day: 1, time.Second: 1, 0: 0, -day: 0} {
		if got := alertOf(left); got != want {
			t.Errorf("%v left: %d, want %d", left, got, want)
		}
	}
}

func TestFrontRunEnds(t *testing.T) {
	in := inDir(t)
	i := issue(t, newAuthority(t, "CA"), CertRequest{Name: "gw", DNS: []string{"gw"}, Server: true})
	if err := i.Save(in("c.pem"), in("c.key")); err != nil {
		t.Fatal(err)
	}
	f := must[*Front](t)(NewFront(FrontConfig{Certificate: in("c.pem"), Key: in("c.key"), Every: time.Millisecond}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := f.Run(ctx); err != nil {
		t.Error(err)
	}
}

// A PFX as OpenSSL writes it, of today and of old.
func TestFrontPFX(t *testing.T) {
	in := inDir(t)
	root := newRoot(t, "root")
	sub := below(t, root, "issuing", time.Now().Add(-day), 100*day)
	i := issue(t, sub, CertRequest{Name: "gw", DNS: []string{"gw.example.com"}, Server: true})
	if err := i.Save(in("c.pem"), in("c.key")); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"above.pem": certificatePEM(root.cert, sub.cert), "password": []byte("geheim\n"), "wrong": []byte("x")} {
		if err := os.WriteFile(in(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Dir(in("x"))
	openssl(t, dir, "pkcs12", "-export", "-in", "c.pem", "-inkey", "c.key", "-certfile", "above.pem", "-passout", "pass:geheim", "-out", "new.pfx")
	openssl(t, dir, "pkcs12", "-export", "-in", "c.pem", "-inkey", "c.key", "-certfile", "above.pem", "-passout", "pass:geheim", "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-out", "OLD.P12")
	for _, name := range []string{"new.pfx", "OLD.P12"} {
		f := must[*Front](t)(NewFront(FrontConfig{Certificate: in(name), PasswordFile: in("password")}))
		if got, err := seenBy(t, f, "gw.example.com"); err != nil || !got.Equal(i.Certificate) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if n := len(f.served.Load().now.pair.Certificate); n != 3 {
			t.Errorf("%s: a chain of %d certificates, want 3", name, n)
		}
	}
	if _, err := NewFront(FrontConfig{Certificate: in("new.pfx"), PasswordFile: in("wrong")}); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a wrong password: %v", err)
	}
	_, err := NewFront(FrontConfig{Certificate: in("c.pem"), Key: in("c.key"), ACME: ACMEConfig{Hosts: []string{"x.example"}}})
	if err == nil || cmg.StatusOf(err) != 400 {
		t.Errorf("files and ACME: %v", err)
	}
}
