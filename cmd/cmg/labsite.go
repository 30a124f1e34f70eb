package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

const labFolderOnDevice = "lab-package" // where agents put the package

// makeSite makes the lab's site, its certificates, its package and the
// policy that deploys it.
func (l *lab) makeSite(ctx context.Context) error {
	for _, dir := range []string{"config", "certs", "state", "run"} {
		if err := os.Mkdir(filepath.Join(l.dir, dir), 0o700); err != nil {
			return err
		}
	}
	var err error
	l.role, err = makeSite(ctx, l.site, siteRequest{
		settings: site.Settings{Code: labSite, Name: "Lab"}, plain: true,
		name: "management-point-1", target: "https://" + local(l.ports.management),
		services: []cmg.GatewayService{{Host: labService, Port: l.ports.client}},
	})
	if err != nil {
		return err
	}
	db, err := l.site.open(ctx, l.now)
	if err != nil {
		return err
	}
	return errors.Join(l.fillSite(ctx, db), db.Close())
}

func (l *lab) fillSite(ctx context.Context, db *site.Site) (err error) {
	if err := db.AddRoutes(ctx, l.maps...); err != nil {
		return err
	}
	if err := l.issueAll(ctx, db); err != nil {
		return err
	}
	dir, name := l.opt.content, filepath.Base(l.opt.content)
	if dir == "" {
		dir, name = filepath.Join(l.dir, "input"), "Lab package"
		if err := makeInput(dir); err != nil {
			return err
		}
	}
	if l.pack, err = addContent(ctx, db, l.site.contentDir(), dir, "", name, nil); err != nil {
		return err
	}
	if _, _, err := deploy(ctx, db, l.pack.ID, deployOptions{folder: labFolderOnDevice, version: l.pack.Version}); err != nil {
		return err
	}
	for _, agent := range []string{"agent-2", "agent-3"} {
		token, err := l.site.newToken(ctx, db, auth.Claims{Kind: auth.TokenRegistration, Note: agent}, 24*time.Hour, 1)
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.file("certs", agent+".token"), []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// issueAll issues what the lab's processes and its walk show.
func (l *lab) issueAll(ctx context.Context, db *site.Site) error {
	here := []string{"localhost", "127.0.0.1"}
	for _, c := range []struct {
		role, name string
		hosts      []string
	}{
		{"gateway", "gateway-1", append(here, labService)}, {"gateway", "gateway-2", append(here, labService)},
		{"connection-point", "connection-point-1", nil}, {"connection-point", "connection-point-2", nil},
		{"management-point", "management-point-1", here}, {"content-store", "content-store-1", here},
		{"client", "agent-1", nil}, {"client", "curl", nil},
	} {
		if _, err := l.site.issueRole(ctx, db, c.role, c.name, "", c.hosts, l.file("certs")); err != nil {
			return err
		}
	}
	// Somebody else's client, for the walk: nobody here trusts it.
	other, err := auth.NewAuthority("Somebody else", time.Hour)
	if err != nil {
		return err
	}
	stranger, err := other.Issue(auth.CertRequest{Name: "stranger", Client: true})
	if err != nil {
		return err
	}
	return stranger.Save(l.file("certs", "stranger.crt"), l.file("certs", "stranger.key"))
}

func (l *lab) file(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l *lab) identity(name string) auth.IdentityFiles {
	return auth.IdentityFiles{Certificate: l.file("certs", name+".crt"), Key: l.file("certs", name+".key"), Roots: l.file("certs", "roots.crt")}
}

// makeInput makes the package that a lab has without --content: the same
// bytes each time.
func makeInput(dir string) error {
	source := rand.NewChaCha8([32]byte([]byte("the same bytes in every lab, 32.")))
	total := 0
	for i := range 40 {
		length := 600 << 10
		switch {
		case i == 0:
			length = 0 // an empty file
		case i < 20:
			length = i * 997
		case i == 39:
			length = 24<<20 - total
		}
		total += length
		b := make([]byte, length)
		source.Read(b) // never fails
		file := filepath.Join(dir, "folder "+strconv.Itoa(i%5), fmt.Sprintf("file-%02d.bin", i))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// parseMaps reads PREFIX=URL.
func parseMaps(maps []string) (rs []site.PublishedRoute, err error) {
	for _, m := range maps {
		prefix, target, ok := strings.Cut(m, "=")
		r := site.PublishedRoute{Route: openRoute(prefix), Target: target}
		if !ok {
			return nil, usage("--map %q is not PREFIX=URL", m)
		}
		if err := errors.Join(r.Route.Check(), cmg.Mapping{Prefix: prefix, Target: target}.Check()); err != nil {
			return nil, usage("--map %s: %w", m, err)
		}
		if id, ok := site.ProxiedRole(prefix); ok && id == site.FirstRoleID {
			return nil, usage("--map %s: the prefix is of the lab's management point", m)
		}
		if slices.ContainsFunc(rs, func(o site.PublishedRoute) bool { return strings.EqualFold(o.Route.Prefix, prefix) }) {
			return nil, usage("--map %s: the prefix stands twice", m)
		}
		rs = append(rs, r)
	}
	return rs, nil
}
