package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/role/managementpoint"
	"github.com/opencmg/cmg/site"
)

func siteCommand(a *app) *cobra.Command {
	return group("site", "Make a site, run its inside roles, issue certificates", "",
		siteInitCommand(a), siteRunCommand(a), siteIssueCommand(a))
}

// A siteRequest says what site to make.
type siteRequest struct {
	settings site.Settings
	name     string                    // of the management point: a host name
	listen   string                    // of the management point: host:port
	target   string                    // where connection points reach it
	services []cmg.GatewayService      // how clients name the gateways
	outward  []connectionpoint.Gateway // how the connection point reaches them
	trusted  []string                  // PEM files: further authorities of client certificates
	plain    bool                      // no certificates and no file for cmg site run
}

func siteInitCommand(a *app) *cobra.Command {
	var r siteRequest
	var dir string
	var gateways []string
	instances := 1
	c := &cobra.Command{Use: "init", Short: "Make a new site", Args: takes(),
		Long: `Makes a site's folder: an authority for servers and channels and one for
client certificates, the keys that sign publications, tokens and store URLs,
the database, and cmg.yaml for "cmg site run". An existing folder that is not
empty is left as it is.`,
		Example: "  cmg site init --dir site --code LAB --gateway gw.example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, g := range gateways {
				s, err := parseService(g)
				if err != nil {
					return err
				}
				r.services = append(r.services, s)
				r.outward = append(r.outward, outwardTo(s, instances))
			}
			if dir == "" || r.settings.Code == "" {
				return usage("--dir and --code are needed\nexample: %s", strings.TrimSpace(cmd.Example))
			}
			if instances < 1 {
				return usage("--instances %d is less than 1", instances)
			}
			if err := r.complete(); err != nil {
				return err
			}
			id, err := makeSite(cmd.Context(), siteFolder(dir), r)
			if err != nil {
				return err
			}
			s := siteFolder(dir)
			fmt.Fprintf(a.stdout, `site %s is made in %s
  management point   %s, published under %s%s
  run the inside     cmg site run --config %s
  issue to a gateway cmg site issue gateway --site %s --name gateway-1 --host gw.example.com
`, r.settings.Code, dir, r.target, cmg.PrefixMutualAuth, id, s.configFile(), dir)
			return nil
		}}
	host, _ := os.Hostname() // only a default
	f := c.Flags()
	f.StringVar(&dir, "dir", "", "folder to make")
	f.StringVar(&r.settings.Code, "code", "", "site code: three of A-Z and 0-9")
	f.StringVar(&r.settings.Name, "name", "", "name for people")
	f.StringVar(&r.name, "management-point", host, "the management point's host name")
	f.StringVar(&r.listen, "listen", ":8443", "where the management point listens")
	f.StringVar(&r.target, "target", "", "where connection points reach it (default: https://localhost and the port of --listen)")
	f.StringArrayVar(&gateways, "gateway", nil, "service name of a gateway, HOST[:PORT]; may be repeated")
	f.IntVar(&instances, "instances", 1, "how many instances each of them has")
	f.StringArrayVar(&r.trusted, "trust-clients", nil, "PEM file: further authority of client certificates; may be repeated")
	return c
}

// complete checks r's names and fills in where connection points reach the
// management point.
func (r *siteRequest) complete() error {
	if err := checkHost("--management-point", r.name); err != nil {
		return err
	}
	if strings.HasPrefix(r.name, "*") {
		return usage("--management-point %q names more than one host", r.name)
	}
	if r.target != "" {
		return nil
	}
	_, port, err := net.SplitHostPort(r.listen)
	if err != nil {
		return usage("--listen %q is not host:port", r.listen)
	}
	r.target = "https://" + net.JoinHostPort("localhost", port)
	return nil
}

// outwardTo says how connection points reach a service: over the port that
// clients use, for any number of instances.
func outwardTo(s cmg.GatewayService, instances int) connectionpoint.Gateway {
	g := connectionpoint.Gateway{Service: s.Host}
	if s.Port != 443 {
		g.Service = net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	}
	if instances > 1 {
		g.Instances = instances
	}
	return g
}

// makeSite makes a site with one management point and gives its role id.
func makeSite(ctx context.Context, s siteFolder, r siteRequest) (id cmg.RoleID, err error) {
	err = s.create(ctx, r.settings, func(made siteFolder, db *site.Site) (err error) {
		if id, err = db.AddManagementPoint(ctx, r.name, r.target); err != nil {
			return err
		}
		for _, g := range r.services {
			if err := db.AddGateway(ctx, g); err != nil {
				return err
			}
		}
		for _, file := range r.trusted {
			bundle, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := db.AddAnchor(ctx, bundle); err != nil {
				return err
			}
		}
		if r.plain {
			return nil
		}
		return made.finishForRun(ctx, db, r)
	})
	return id, err
}

// finishForRun issues what "cmg site run" needs and writes its file.
func (s siteFolder) finishForRun(ctx context.Context, db *site.Site, r siteRequest) error {
	hosts := []string{r.name, "localhost", "127.0.0.1", "::1"}
	for _, role := range []struct {
		kind  cmg.RoleKind
		hosts []string
	}{{cmg.RoleManagementPoint, hosts}, {cmg.RoleConnectionPoint, nil}} {
		name := string(role.kind) + "-1"
		files := s.identity(name)
		if err := s.issue(ctx, db, "site", requestFor(r.settings.Code, role.kind, name, role.hosts), files.Certificate, files.Key); err != nil {
			return err
		}
	}
	here := siteFolder(".") // the file says all relative to itself
	where := siteSection{Dir: "."}
	mp := managementpoint.Config{
		Name: r.name, Listen: r.listen, Identity: here.identity("management-point-1"),
		Signing: here.signing(), TokenKeys: here.tokenKeys(),
	}
	mp.Uploads.Dir = here.file("state", "uploads")
	pairs := []any{"site", &where, "management_point", &mp}
	if len(r.outward) > 0 {
		pairs = append(pairs, "connection_point", &connectionpoint.Config{
			Gateways: r.outward, Identity: here.identity("connection-point-1"), Map: r.target, StateDir: here.file("state", "connection-point-1"),
		})
	}
	text := "# What runs inside: cmg site run --config cmg.yaml\n# Every key there is: cmg config example\n\n" + filepath.ToSlash(render(pairs...))
	return os.WriteFile(s.configFile(), []byte(text), 0o600)
}

func siteRunCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "run", Short: "Run the inside roles in one process", Args: takes(),
		Long: `Runs the management point and, where its section is there, the connection
point in one process. Told to stop, the connection point drains first.`}
	addConfigFlag(a, c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.setup("management_point")
		if err != nil {
			return err
		}
		l, mp := s.life(), managementpoint.Config{}
		if err := s.section("management_point", &mp); err != nil {
			return err
		}
		mp.Health, mp.Again.Asked = l.add(cmg.RoleManagementPoint, "up")
		mp.Sockets, mp.Again.Read = a.sockets, rereads[managementpoint.Config](a, "management_point")
		if !s.doc.has("connection_point") {
			s.log.Warn("no section connection_point: no gateway will be connected")
			return l.run(cmd.Context(), func(ctx context.Context) error { return s.runManagementPoint(ctx, mp) })
		}
		var cp connectionpoint.Config
		if err := s.section("connection_point", &cp); err != nil {
			return err
		}
		cp.Health, cp.Again.Asked = l.add(cmg.RoleConnectionPoint, "")
		cp.Log, cp.Now, cp.Sockets, cp.Again.Read = s.log, a.now, a.sockets, rereads[connectionpoint.Config](a, "connection_point")
		point, err := connectionpoint.New(cp)
		if err != nil {
			return err
		}
		return l.run(cmd.Context(), func(ctx context.Context) error {
			return innerLast(ctx, point.Run, func(ctx context.Context) error { return s.runManagementPoint(ctx, mp) })
		})
	}
	return c
}

// innerLast runs both until ctx ends. Then outer stops first, so that what it
// still passes on finds inner there. When one ends by itself, so does the
// other.
func innerLast(ctx context.Context, outer, inner func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	innerCtx, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	return together(context.WithoutCancel(ctx),
		func(context.Context) error { defer stopInner(); return outer(ctx) },
		func(context.Context) error { defer stop(); return inner(innerCtx) })
}

// rereads gives a function that reads a section anew.
func rereads[C any](a *app, section string) func() (C, error) {
	return func() (c C, err error) {
		s, err := a.setup(section)
		if err != nil {
			return c, err
		}
		return c, s.section(section, &c)
	}
}

func siteIssueCommand(a *app) *cobra.Command {
	var name, out, device string
	var hosts []string
	c := &cobra.Command{Use: "issue ROLE", Short: "Issue a certificate", Args: takes("ROLE"),
		Long: `Issues a certificate with its key, and writes the site's root beside them.
ROLE is gateway, connection-point, management-point, content-store or client.
A gateway gets two: NAME for its channel and NAME-front, which clients meet;
the latter may come from any authority that clients trust.`,
		Example: "  cmg site issue gateway --name gateway-1 --host gw.example.com --out gateway-1\n  cmg site issue client --name laptop-7"}
	c.Flags().StringVar(&name, "name", "", "the role's name, such as gateway-1")
	c.Flags().StringSliceVar(&hosts, "host", nil, "host names and addresses of a server")
	c.Flags().StringVar(&device, "device", "", "device id, for client: the certificate is this device's")
	c.Flags().StringVar(&out, "out", "", "folder for the files (default: issued in the site's folder)")
	c.PreRunE = func(*cobra.Command, []string) error { return checkIssue(name, device, hosts) }
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, args []string) error {
		if out == "" {
			out = s.issuedDir()
		}
		files, err := s.issueRole(ctx, db, args[0], name, device, hosts, out)
		for _, f := range files {
			fmt.Fprintln(a.stdout, f)
		}
		return err
	})
}

// checkIssue says what is wrong with a request for a certificate.
func checkIssue(name, device string, hosts []string) error {
	if name == "" {
		return usage("--name is missing")
	}
	if err := checkName(name); err != nil {
		return err
	}
	if device != "" {
		if _, err := cmg.ParseDeviceID(device); err != nil {
			return usage("--device: %w", err)
		}
	}
	for _, h := range hosts {
		if err := checkHost("--host", h); err != nil {
			return err
		}
	}
	return nil
}

// issueRole issues all that a role needs into a folder and lists the files.
func (s siteFolder) issueRole(ctx context.Context, db *site.Site, role, name, device string, hosts []string, out string) (files []string, err error) {
	st, err := db.Settings(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return nil, err
	}
	issue := func(authority, file string, r auth.CertRequest) error {
		cert, key := filepath.Join(out, file+".crt"), filepath.Join(out, file+".key")
		if err := s.issue(ctx, db, authority, r, cert, key); err != nil {
			return err
		}
		files = append(files, cert, key)
		return nil
	}
	if role == "client" {
		return files, issue("clients", name, auth.CertRequest{Site: st.Code, Name: name, Device: cmg.DeviceID(device), Client: true})
	}
	kind := cmg.RoleKind(role)
	issuable := []string{string(cmg.RoleGateway), string(cmg.RoleConnectionPoint), string(cmg.RoleManagementPoint), string(cmg.RoleContentStore), "client"}
	switch kind {
	case cmg.RoleGateway, cmg.RoleManagementPoint, cmg.RoleContentStore:
		if len(hosts) == 0 {
			return nil, usage("--host is missing: by which names is the %s reached?", role)
		}
	case cmg.RoleConnectionPoint:
	default:
		return nil, usage("role %s is not one of %s%s", strconv.Quote(role), strings.Join(issuable, ", "), didYouMean(role, issuable))
	}
	if err := issue("site", name, requestFor(st.Code, kind, name, hosts)); err != nil {
		return files, err
	}
	if kind == cmg.RoleGateway {
		front := requestFor(st.Code, "", name+"-front", hosts)
		front.Client = false
		if err := issue("site", name+"-front", front); err != nil {
			return files, err
		}
	}
	if filepath.Clean(out) == filepath.Clean(s.issuedDir()) {
		return files, nil
	}
	roots, err := os.ReadFile(s.roots())
	if err != nil {
		return files, err
	}
	copied := filepath.Join(out, "roots.crt")
	return append(files, copied), os.WriteFile(copied, roots, 0o644)
}
