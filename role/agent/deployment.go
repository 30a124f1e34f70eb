package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/content"
)

// deploy brings the packages that a policy names into their folders.
func (a *Agent) deploy(ctx context.Context, policy string, all []ccm.ContentDeployment) ([]installed, error) {
	var there []installed
	for _, d := range all {
		i, err := a.install(ctx, policy, d)
		if err != nil {
			return there, fmt.Errorf("deploy %s version %d: %w", d.PackageID, d.PackageVersion, err)
		}
		there = append(there, i)
	}
	return there, nil
}

func (a *Agent) install(ctx context.Context, policy string, d ccm.ContentDeployment) (installed, error) {
	dir, err := a.folder(d.Folder)
	if err != nil {
		return installed{}, err
	}
	if err := a.mayInstall(policy, d, dir); err != nil {
		return installed{}, err
	}
	locate := func(ctx context.Context) (content.Located, error) { return a.locate(ctx, d) }
	m, err := locate(ctx)
	if err != nil {
		return installed{}, err
	}
	r, err := a.files.Fetch(ctx, m, dir, locate)
	if err != nil {
		return installed{}, err
	}
	a.nowIn(policy, dir)
	a.cfg.Log.Info("package installed", "package", d.PackageID, "version", d.PackageVersion, "folder", dir,
		"files", r.Files, "bytes", r.Bytes, "fetched", r.Fetched, "resumed", r.Resumed)
	return installed{ID: d.PackageID, Version: d.PackageVersion, Folder: dir, Files: r.Files, Bytes: r.Bytes, Verified: true}, nil
}

// mayInstall refuses to put an older version of a package over a newer one
// that another policy in force has put into the folder. Policies that were
// taken back do not count, so that a site can go back to an older version.
func (a *Agent) mayInstall(policy string, d ccm.ContentDeployment, dir string) error {
	for id, other := range a.state.Policies {
		for _, i := range other.Content {
			if id != policy && i.ID == d.PackageID && i.Version > d.PackageVersion && sameFolder(i.Folder, dir) {
				return fmt.Errorf("version %d is in %s by policy %s: %w", i.Version, dir, id, cmg.ErrConflict)
			}
		}
	}
	return nil
}

// nowIn notes that the folder holds what policy put there, and nothing of
// any other policy.
func (a *Agent) nowIn(policy, dir string) {
	for id, other := range a.state.Policies {
		if id != policy {
			other.Content = slices.DeleteFunc(slices.Clone(other.Content), func(i installed) bool { return sameFolder(i.Folder, dir) })
		}
	}
}

// sameFolder knows that many systems do not tell upper from lower case.
func sameFolder(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// folder gives the folder that a policy means, within the content folder
// unless the configuration lets policy name any.
func (a *Agent) folder(named string) (string, error) {
	if filepath.IsAbs(named) {
		if !a.cfg.AllowAbsolute {
			return "", fmt.Errorf("folder %.200q is absolute, which allow_absolute does not permit: %w", named, cmg.ErrForbidden)
		}
		return filepath.Clean(named), nil
	}
	if err := cmg.CheckFolder(named); err != nil {
		return "", err
	}
	local := filepath.FromSlash(named)
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("folder %.200q leaves the content folder: %w", named, cmg.ErrInvalid)
	}
	return filepath.Join(a.cfg.ContentDir, local), nil
}

// locate asks the management point where the package is, and a gateway it
// names for the manifest of signed locations.
func (a *Agent) locate(ctx context.Context, d ccm.ContentDeployment) (content.Located, error) {
	text, err := a.askInSession(ctx, ccm.Sending{
		TargetEndpoint: ccm.EndpointLocation, ReplyEndpoint: "LS_ReplyLocations",
		Body: ccm.ContentLocationRequest{Package: d.PackageID, Version: d.PackageVersion, SiteCode: a.cfg.SiteCode, Internet: true}.XML(),
	})
	if err != nil {
		return content.Located{}, fmt.Errorf("locate content: %w", err)
	}
	r, err := ccm.ReadContentLocationReply(text)
	if err != nil {
		return content.Located{}, fmt.Errorf("locate content: %w", err)
	}
	if len(r.Locations) == 0 {
		return content.Located{}, fmt.Errorf("locate content: no location is known: %w", cmg.ErrNotFound)
	}
	var errs []error
	for _, l := range r.Locations {
		m, err := a.manifest(ctx, l.URL, r.Token)
		if err == nil {
			err = isManifestOf(m, d)
		}
		if err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("get manifest from %s: %w", l.Server, err))
	}
	return content.Located{}, errors.Join(errs...)
}

// isManifestOf says what is wrong where a gateway answered with another
// package.
func isManifestOf(m content.Located, d ccm.ContentDeployment) error {
	if m.Manifest.Package != d.PackageID || m.Manifest.Version != d.PackageVersion {
		return fmt.Errorf("it is of %s version %d: %w", m.Manifest.Package, m.Manifest.Version, cmg.ErrInvalid)
	}
	return nil
}

func (a *Agent) manifest(ctx context.Context, where, bearer string) (m content.Located, err error) {
	if u, err := url.Parse(where); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return m, fmt.Errorf("location %.200q is not https://host/path: %w", where, cmg.ErrInvalid) // the token goes there
	}
	err = a.link.do(ctx, call{
		method: http.MethodGet, url: where, within: 10 * time.Minute,
		header: func(h http.Header) error {
			return authorize(ctx, h, func(context.Context) (string, error) { return bearer, nil })
		},
		read: func(r *http.Response) (err error) {
			m, err = content.ReadManifest(r.Body)
			return err
		},
	})
	return m, err
}
