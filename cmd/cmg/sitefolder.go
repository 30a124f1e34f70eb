package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/site"
)

// A siteFolder is where a site keeps all it has: the database, its
// authorities, its keys and, unless they are elsewhere, the packages.
type siteFolder string

func (s siteFolder) file(elem ...string) string {
	return filepath.Join(append([]string{string(s)}, elem...)...)
}

func (s siteFolder) database() string    { return s.file("site.db") }
func (s siteFolder) roots() string       { return s.file("ca", "site.crt") }
func (s siteFolder) tokenKeys() string   { return s.file("keys", "tokens.jwks") }
func (s siteFolder) auditHead() string   { return s.file("audit.head") }
func (s siteFolder) contentKey() string  { return s.file("keys", "content.key") }
func (s siteFolder) contentDir() string  { return s.file("content") }
func (s siteFolder) issuedDir() string   { return s.file("issued") }
func (s siteFolder) configFile() string  { return s.file("cmg.yaml") }
func (s siteFolder) clientRoots() string { return s.file("ca", "clients.crt") }

// authority loads one of the two: "site" for servers and channels, "clients"
// for devices that have no certificate of their own.
func (s siteFolder) authority(name string) (*auth.Authority, error) {
	return auth.LoadAuthority(s.file("ca", name+".crt"), s.file("ca", name+".key"))
}

// signing is the identity that signs publications.
func (s siteFolder) signing() auth.IdentityFiles {
	return auth.IdentityFiles{Certificate: s.file("keys", "signing.crt"), Key: s.file("keys", "signing.key"), Roots: s.roots()}
}

// identity is where issue puts a role's certificate unless told otherwise.
func (s siteFolder) identity(name string) auth.IdentityFiles {
	return auth.IdentityFiles{Certificate: s.file("issued", name+".crt"), Key: s.file("issued", name+".key"), Roots: s.roots()}
}

// open opens the site's database; now is its clock.
func (s siteFolder) open(ctx context.Context, now func() time.Time) (*site.Site, error) {
	db, err := site.Open(ctx, s.database())
	if err == nil {
		db.Now = now
	}
	return db, err
}

// create makes a site at s, which may not exist or has to be empty. All of it
// appears at once: it is made beside s and renamed.
func (s siteFolder) create(ctx context.Context, st site.Settings, finish func(made siteFolder, db *site.Site) error) (err error) {
	if entries, err := os.ReadDir(string(s)); err == nil && len(entries) > 0 {
		return fmt.Errorf("make site: %s is not empty: %w", s, cmg.ErrConflict)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make site: %w", err)
	}
	whole, err := filepath.Abs(string(s))
	if err != nil {
		return fmt.Errorf("make site: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(whole), 0o755); err != nil {
		return fmt.Errorf("make site: %w", err)
	}
	made, err := os.MkdirTemp(filepath.Dir(whole), ".site-")
	if err != nil {
		return fmt.Errorf("make site: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(made)
		}
	}()
	if err := siteFolder(made).fill(ctx, st, finish); err != nil {
		return fmt.Errorf("make site: %w", err)
	}
	os.Remove(whole) // only ever an empty folder; what matters is the rename
	if err := os.Rename(made, whole); err != nil {
		return fmt.Errorf("make site: %w", err)
	}
	return nil
}

func (s siteFolder) fill(ctx context.Context, st site.Settings, finish func(siteFolder, *site.Site) error) (err error) {
	for _, dir := range []string{"ca", "keys", "issued", "content", "state"} {
		if err := os.Mkdir(s.file(dir), 0o700); err != nil {
			return err
		}
	}
	db, err := site.Create(ctx, s.database(), st)
	if err != nil {
		return err
	}
	db.Actor = whoTypes() + " cmg site init"
	defer func() { err = errors.Join(err, db.Close()) }()
	ring, err := auth.NewKeyring()
	if err != nil {
		return err
	}
	if err := s.makeAuthorities(ctx, st, db); err != nil {
		return err
	}
	if err := errors.Join(ring.Save(s.tokenKeys()), blob.SaveKey(s.contentKey(), blob.NewKey())); err != nil {
		return err
	}
	if err := db.AddTokenKeys(ctx, ring.PublicKeys()); err != nil {
		return err
	}
	return finish(s, db)
}

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	signingLife   = 5 * 365 * 24 * time.Hour
)

// makeAuthorities makes both authorities and the signing identity, and lets
// gateways trust the clients' one.
func (s siteFolder) makeAuthorities(ctx context.Context, st site.Settings, db *site.Site) error {
	for _, a := range []struct{ name, common string }{
		{"site", "OpenCMG site " + st.Code}, {"clients", "OpenCMG clients of site " + st.Code},
	} {
		ca, err := auth.NewAuthority(a.common, authorityLife)
		if err != nil {
			return err
		}
		if err := ca.Save(s.file("ca", a.name+".crt"), s.file("ca", a.name+".key")); err != nil {
			return err
		}
	}
	clients, err := os.ReadFile(s.clientRoots())
	if err != nil {
		return err
	}
	if err := db.AddAnchor(ctx, clients); err != nil {
		return err
	}
	signing := s.signing()
	return s.issue(ctx, db, "site", auth.CertRequest{
		Site: st.Code, Role: cmg.RoleSite, Name: "signing", RSA: true, Life: signingLife,
	}, signing.Certificate, signing.Key)
}

// issue makes a certificate under one of the authorities, saves it with its
// key and records it in the database.
func (s siteFolder) issue(ctx context.Context, db *site.Site, authority string, r auth.CertRequest, certFile, keyFile string) error {
	ca, err := s.authority(authority)
	if err != nil {
		return err
	}
	issued, err := ca.Issue(r)
	if err != nil {
		return err
	}
	if err := issued.Save(certFile, keyFile); err != nil {
		return err
	}
	return db.RecordCertificate(ctx, r.Role, r.Name, issued.Certificate)
}

// requestFor says what certificate a role needs: which end of which wire it
// stands at.
func requestFor(code string, kind cmg.RoleKind, name string, hosts []string) auth.CertRequest {
	r := auth.CertRequest{Site: code, Role: kind, Name: name}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			r.IPs = append(r.IPs, ip)
		} else {
			r.DNS = append(r.DNS, h)
		}
	}
	switch kind {
	case cmg.RoleConnectionPoint:
		r.Client = true
	default:
		r.Server, r.Client = true, true
	}
	return r
}

// A siteVerb is a command that acts on an existing site's folder.
type siteVerb struct {
	app *app
	dir string
}

// onSite gives cmd the flag --site and runs f with the site's folder and its
// open database.
func onSite(a *app, cmd *cobra.Command, f func(ctx context.Context, s siteFolder, db *site.Site, args []string) error) *cobra.Command {
	v := &siteVerb{app: a}
	cmd.Flags().StringVar(&v.dir, "site", "", "the site's folder (default $CMG_SITE, else this one)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s := v.folder()
		db, err := s.open(cmd.Context(), a.now)
		if errors.Is(err, cmg.ErrNotFound) {
			return fmt.Errorf("%w\nname the site's folder with --site or CMG_SITE; cmg site init makes one", err)
		} else if err != nil {
			return err
		}
		err = a.audited(cmd.Context(), s, db, cmd.CommandPath(), func(ctx context.Context) error { return f(ctx, s, db, args) })
		return errors.Join(err, db.Close())
	}
	return cmd
}

func (v *siteVerb) folder() siteFolder {
	dir := v.dir
	if dir == "" {
		dir, _ = v.app.lookup("CMG_SITE")
	}
	if dir == "" {
		dir = "."
	}
	return siteFolder(dir)
}
