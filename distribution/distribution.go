// Package distribution shows packages the way the field's distribution points
// do (PROTOCOL 7.1 to 7.3): read-only WebDAV over packages, and the content
// library as folders.
//
// # What is there
//
//	/                                   the packages, and the folders below; with Library
//	/LAB00001/…                         the files of a package's newest version
//	/LAB00001.2/…                       of version 2
//	/LAB00001/sccm?/bin/tool.exe        /LAB00001/bin/tool.exe, as the field's clients write it
//	/DataLib/LAB00001.2.INI             with Library: one [File] of a version, ours: the manifest document
//	/DataLib/LAB00001.2/bin/tool.exe.INI  Size, TimeModified and Hash of a file
//	/FileLib/<4 hex>/<SHA-256>          the bytes
//	/FileLib/<4 hex>/<SHA-256>.INI      who uses them
//	/PkgLib/LAB00001.INI                the versions of a package
//
// Names are compared without case. GET and HEAD answer with a file, by range
// and under conditions; PROPFIND with the properties of RFC 4918 at Depth 0, 1
// and infinity, the last not at the folders that grow with the site. An ETag
// is the file's SHA-256; Last-Modified is when the version was added. A GET of
// a folder is refused unless Listing is set.
//
// A file that is read from its first byte to its last is held against its
// SHA-256; where it is another one the last bytes are not sent, so that nobody
// takes it for whole. Who may read is for the caller of Serve to say.
package distribution

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
)

// A Store is where files and manifests are: any blob.Store.
type Store interface {
	content.Links
	Stat(ctx context.Context, name string) (blob.Info, error)
}

// A Package is a version of a package that may be shown.
type Package struct {
	cmg.PackageGrant
	Added time.Time
}

// content is the name of the version in the library, such as LAB00001.2.
func (p Package) content() string { return fmt.Sprintf("%s.%d", p.Package, p.Version) }

// Config says what a View shows.
type Config struct {
	Library bool // the packages, DataLib, FileLib and PkgLib may be browsed
	Listing bool // a GET of a folder is answered with a list in HTML

	Store    Store                                                      // required
	Package  func(context.Context, cmg.PackageID, int) (Package, error) // a version, the newest for 0; ErrNotFound; required
	Packages func(context.Context) ([]Package, error)                   // every version, by id and version; required
}

// A View answers requests for packages. It may be used by many at once.
type View struct {
	cfg     Config
	locator *content.Locator // reads manifests, and remembers them
}

// New checks c and reads nothing.
func New(c Config) (*View, error) {
	if c.Store == nil || c.Package == nil || c.Packages == nil {
		return nil, fmt.Errorf("distribution: no store, or nobody who knows the packages: %w", cmg.ErrInvalid)
	}
	l, err := content.NewLocator(content.LocatorConfig{Links: c.Store})
	if err != nil {
		return nil, fmt.Errorf("distribution: %w", err)
	}
	return &View{cfg: c, locator: l}, nil
}

// Methods are what Serve answers.
var Methods = []string{http.MethodGet, http.MethodHead, http.MethodOptions, "PROPFIND"}

// A Place is where in a URL a View stands.
type Place struct {
	Base string // path in front of the View's own, as the client wrote it, without a closing slash
	Host string // host that links in lists name
}

// Serve answers a request whose path lies below at.Base. An error was not
// answered, but the answer may have begun: then it has to be broken off. It moves the connection's write deadline as bytes are
// taken.
func (v *View) Serve(w http.ResponseWriter, r *http.Request, at Place) error {
	if r.Method == http.MethodOptions {
		h := w.Header()
		h.Set("DAV", "1")
		h.Set("MS-Author-Via", "DAV")
		h.Set("Allow", strings.Join(Methods, ", "))
		h.Set("Content-Length", "0")
		return nil
	}
	if !slices.Contains(Methods, r.Method) {
		w.Header().Set("Allow", strings.Join(Methods, ", "))
		return cmg.Refuse(http.StatusMethodNotAllowed, "CMGMP_Method_Not_Allowed", "the path takes "+strings.Join(Methods, ", "), nil)
	}
	path, err := wanted(r, at.Base)
	if err != nil {
		return err
	}
	n, err := v.find(r.Context(), path)
	if err != nil {
		return err
	}
	switch {
	case r.Method == "PROPFIND":
		return v.propfind(newPacer(w), r, at, path, n)
	case n.folder() && !v.cfg.Listing:
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Listing_Off", "folders are not listed here: ask with PROPFIND", nil)
	case n.folder():
		return v.list(newPacer(w), r, at, path, n)
	}
	return v.file(newPacer(w), r, n)
}

// maxPath bounds the path of a request, in bytes.
const maxPath = 4096

// wanted gives the path below base, without slashes at its ends. The segment
// sccm with a query is the path in the query.
func wanted(r *http.Request, base string) (string, error) {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, base), "/")
	if query := r.URL.RawQuery; strings.HasPrefix(query, "/") {
		folder, last := "", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			folder, last = path[:i], path[i+1:]
		}
		if strings.EqualFold(last, "sccm") {
			rest, err := url.PathUnescape(query)
			if err != nil {
				return "", cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the path in the query cannot be read", err)
			}
			path = strings.Trim(folder+"/"+strings.Trim(rest, "/"), "/")
		}
	}
	if len(path) > maxPath {
		return "", cmg.Refuse(http.StatusRequestURITooLong, "CMGMP_Bad_Request", "the path is too long", nil)
	}
	return path, nil
}

// unknown refuses a path that leads nowhere.
func unknown(cause error) error {
	return cmg.Refuse(http.StatusNotFound, "CMGMP_Content_Unknown", "there is no such content here", cause)
}

// file answers with a file.
func (v *View) file(w http.ResponseWriter, r *http.Request, n *node) error {
	s, err := n.open(r.Context())
	if err != nil {
		return err
	}
	defer s.Close()
	h := w.Header()
	h.Set("Cache-Control", "private, no-transform")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", n.etag)
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		r = r.Clone(r.Context())
		r.Header.Del("Range") // RFC 9110 section 14.2: may be ignored
	}
	if err := s.begin(); err != nil { // the disk says no before the answer begins
		return err
	}
	http.ServeContent(w, r, "", n.modified, s)
	return s.err
}

// maxRanges bounds the ranges of one request.
const maxRanges = 32

var _ io.ReadSeeker = (*source)(nil)
