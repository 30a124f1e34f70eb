package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// gatewayOf makes a site's authority, and an identity for a gateway and for a
// connection point of it.
func gatewayOf(t *testing.T, code string) (gw, cp *Identity) {
	t.Helper()
	a, err := NewAuthority(code, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(role cmg.RoleKind, server bool) *Identity {
		c, err := a.Issue(CertRequest{Site: code, Role: role, Name: "x", Server: server, Client: !server})
		if err != nil {
			t.Fatal(err)
		}
		id, err := NewIdentity(c.CertPEM, c.KeyPEM, certificatePEM(a.Certificate()))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	return issue(cmg.RoleGateway, true), issue(cmg.RoleConnectionPoint, false)
}

// TestSites: connection points of two sites meet one gateway, each under its
// own site's authority; those of a third meet the first's and are refused.
func TestSites(t *testing.T) {
	one, cpOne := gatewayOf(t, "ONE")
	two, cpTwo := gatewayOf(t, "TWO")
	_, cpTre := gatewayOf(t, "TRE")
	sites, err := NewSites(one, two)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := NewSites(two)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		server *tls.Config
		client *Identity
		peer   string // "" is refused
	}{
		{"first", sites.ChannelServer(), cpOne, "cmg://ONE/gateway/x"},
		{"second", sites.ChannelServer(), cpTwo, "cmg://TWO/gateway/x"},
		{"third", sites.ChannelServer(), cpTre, ""},
		{"alone", alone.ChannelServer(), cpTwo, "cmg://TWO/gateway/x"},
		{"not its own", alone.ChannelServer(), cpOne, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := handshake(t, c.server, c.client.ChannelClient())
			if refused := m.serverErr != nil || m.clientErr != nil; refused != (c.peer == "") {
				t.Fatalf("server %v, client %v", m.serverErr, m.clientErr)
			}
			if c.peer == "" {
				return
			}
			if n, ok := PeerRole(&m.client); !ok || n.String() != c.peer || m.client.NegotiatedProtocol != "cmg/1" {
				t.Errorf("the peer is %v, over %q", n, m.client.NegotiatedProtocol)
			}
		})
	}
	for name, ids := range map[string][]*Identity{"twice": {one, one}, "role": {cpOne}, "no identity": nil} {
		if _, err := NewSites(ids...); !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIsChannelHello(t *testing.T) {
	for hello, want := range map[string]bool{
		"cmg/1": true, "cmg/1 cmg-site/ONE": true, "": false, "h2": false, "h2 cmg/1": false, "cmg/1 h2": false, "cmg-site/ONE": false,
	} {
		if got := isChannelHello(strings.Fields(hello)); got != want {
			t.Errorf("%q: %v", hello, got)
		}
	}
}

// TestSiteShown reads whose caller it is from what is shown, believing none
// of it.
func TestSiteShown(t *testing.T) {
	keys, err := NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	token, err := keys.Issue(Claims{Kind: TokenRegistration, Site: "ONE", NotBefore: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	_, two := gatewayOf(t, "TWO")
	shown := []*x509.Certificate{two.Certificate()}
	for name, c := range map[string]struct {
		e    Evidence
		want string
	}{
		"nothing":                   {Evidence{}, ""},
		"token":                     {Evidence{Authorization: "Bearer " + token}, "ONE"},
		"token of a forger":         {Evidence{Authorization: "Bearer " + token[:len(token)-4] + "AAAA"}, "ONE"},
		"certificate":               {Evidence{Certificates: shown}, "TWO"},
		"both":                      {Evidence{Certificates: shown, Authorization: "bearer " + token}, "ONE"},
		"no token, but certificate": {Evidence{Certificates: shown, Authorization: "Bearer x.y.z"}, "TWO"},
		"another issuer":            {Evidence{Authorization: "Bearer x.eyJpc3MiOiJodHRwczovL3gifQ.z"}, ""},
		"too long":                  {Evidence{Authorization: "Bearer " + token + strings.Repeat("x", maxToken)}, ""},
	} {
		if got := SiteShown(c.e); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestForeign(t *testing.T) {
	for code, want := range map[string]bool{
		"CMGService_Invalid_Token_Unknown_Key": true, "CMGService_Invalid_Token_Wrong_Site": true, "CMGService_Certificate_Unknown_Issuer": true,
		"CMGService_Certificate_Unknown_Root": true, "CMGService_Invalid_Token_Unknown_Tenant": true,
		"CMGService_Authentication_Required": true, "CMGService_Client_Certificate_Required": true,
		"CMGService_Invalid_Token_Expired": false, "CMGService_Certificate_Expired": false, "CMGService_Method_Not_Allowed": false,
	} {
		if got := Foreign(cmg.Refuse(403, code, "x", nil)); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	if Foreign(errors.New("x")) {
		t.Error("any error")
	}
}

func FuzzSiteShown(f *testing.F) {
	for _, s := range []string{"Bearer a.b.c", "Bearer x.eyJpc3MiOiJ1cm46Y21nOnNpdGU6T05FIn0.z", "Bearer ..", "", "Bearer x.eyJpc3MiOjF9.z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		if site := SiteShown(Evidence{Authorization: authorization}); site != "" && !siteCode.MatchString(site) {
			t.Errorf("%q is no site's code", site)
		}
	})
}
