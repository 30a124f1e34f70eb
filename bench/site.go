//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"text/template"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// A site is a throw-away one of ours: what one gateway and one connection
// point need, and the token that the load shows with every request.
type site struct {
	dir   string
	token string
}

const siteCode = "BEN"

// makeSite makes it in a new folder, published to target, with so many
// gateways.
func makeSite(dir, target string, gateways int) (*site, error) {
	s := &site{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	ca, err := auth.NewAuthority("bench site", 24*time.Hour)
	if err == nil {
		err = ca.Save(s.file("roots.crt"), s.file("roots.key"))
	}
	if err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	requests := map[string]auth.CertRequest{
		"connection-point": {Role: cmg.RoleConnectionPoint, Client: true},
		"management-point": {Role: cmg.RoleManagementPoint, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true},
		"signing":          {Role: cmg.RoleSite, RSA: true},
	}
	for i := range gateways {
		requests[gatewayFile(i)] = auth.CertRequest{Role: cmg.RoleGateway, DNS: []string{"localhost"}, Server: true, Client: true}
	}
	for name, r := range requests {
		r.Site, r.Name = siteCode, name+"-1"
		is, err := ca.Issue(r)
		if err == nil {
			err = is.Save(s.file(name+".crt"), s.file(name+".key"))
		}
		if err != nil {
			return nil, fmt.Errorf("site: issue %s: %w", name, err)
		}
	}
	return s, s.publish(target)
}

// gatewayFile names the files of one of a site's gateways.
func gatewayFile(i int) string {
	if i == 0 {
		return "gateway"
	}
	return "gateway-" + strconv.Itoa(i+1)
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// publish writes the map that the connection point reads, and issues the
// token.
func (s *site) publish(target string) error {
	keys, err := auth.NewKeyring()
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	p := cmg.Publication{Version: 1, Site: siteCode, Issued: time.Now(), Keys: keys.PublicKeys()}
	var m cmg.Map
	for _, prefix := range []string{"/s", "/p", "/b", "/hold"} {
		p.Routes = append(p.Routes, cmg.Route{Prefix: prefix, Name: "bench" + prefix, Methods: []string{"GET", "POST"}, Proofs: []cmg.Proof{cmg.ProofToken}, MaxBody: 64 << 30, Waits: prefix == "/hold"})
		m.Mappings = append(m.Mappings, cmg.Mapping{Prefix: prefix, Target: target + prefix})
	}
	id, err := auth.LoadIdentity(auth.IdentityFiles{Certificate: s.file("signing.crt"), Key: s.file("signing.key"), Roots: s.file("roots.crt")})
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if m.Publication, err = auth.SignPublication(id, p); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	s.token, err = keys.Issue(auth.Claims{Kind: auth.TokenSession, Site: siteCode, Device: cmg.NewDeviceID(), Expires: time.Now().Add(8 * time.Hour)})
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(s.file("map.json"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("site: map: %w", err)
	}
	return nil
}

// Everything that is not an address, a file or a limit of W5 is as the
// product comes.
var siteConfigs = map[string]*template.Template{
	"gateway.yaml": template.Must(template.New("").Parse(`gateway:
  listen: {{.Front}}
  channel: {{.Channel}}
  certificate: {{.Certs}}/server.pem
  key: {{.Certs}}/server.key
  identity: {certificate: gateway.crt, key: gateway.key, roots: roots.crt}
  state_dir: {{.State}}/gateway
  status: {{.GatewayStatus}}
`)),
	"connection-point.yaml": template.Must(template.New("").Parse(`connection_point:
  gateways: ["{{.Dial}}"]
  identity: {certificate: connection-point.crt, key: connection-point.key, roots: roots.crt}
  map: map.json
  state_dir: {{.State}}/connection-point
  max_requests: 20000
  status: {{.ConnectionPointStatus}}
`)),
}

// A siteMeeting says where the processes of a site meet this time.
type siteMeeting struct {
	Front, Channel, Dial string // host:port
	Certs, State         string // folders

	GatewayStatus, ConnectionPointStatus string // host:port, on: it is part of what is measured
}

// configure writes the configuration of both processes, which begin with no
// state.
func (s *site) configure(m siteMeeting) error {
	m.State = s.file("state")
	err := os.RemoveAll(m.State)
	for name, t := range siteConfigs {
		f, ferr := os.OpenFile(s.file(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if ferr == nil {
			ferr = errors.Join(t.Execute(f, m), f.Close())
		}
		err = errors.Join(err, ferr)
	}
	if err != nil {
		return fmt.Errorf("site: configure: %w", err)
	}
	return nil
}
