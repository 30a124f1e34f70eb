package content

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

const (
	locatedFormat = "1"
	maxURL        = 4096
)

// Located is a manifest with the place of every file.
type Located struct {
	Manifest cmg.Manifest
	URLs     []string  // of each file in Manifest.Files, in their order
	Expires  time.Time // when the URLs end, in whole seconds
}

// XML writes l in format 1. What it writes ReadManifest reads, if l is right.
func (l Located) XML() []byte {
	b := appendHead(make([]byte, 0, 512+512*len(l.URLs)), l.Manifest, l.Expires)
	for i, f := range l.Manifest.Files {
		b = appendFile(b, f)
		b = append(appendEscaped(b, l.URLs[i]), fileTail...)
	}
	return append(b, locatedTail...)
}

const (
	fileTail    = "\"/>\n"
	locatedTail = "</Content>\n"
)

func appendHead(b []byte, m cmg.Manifest, expires time.Time) []byte {
	b = append(b, xml.Header...)
	b = append(b, `<Content Format="`+locatedFormat+`" Package="`...)
	b = append(appendEscaped(b, string(m.Package)), `" Version="`...)
	b = append(strconv.AppendInt(b, int64(m.Version), 10), `" Name="`...)
	b = append(appendEscaped(b, m.Name), `" Files="`...)
	b = append(strconv.AppendInt(b, int64(len(m.Files)), 10), `" Size="`...)
	b = append(strconv.AppendInt(b, m.Size(), 10), `" Expires="`...)
	b = expires.UTC().AppendFormat(b, time.RFC3339)
	return append(b, "\">\n"...)
}

// appendFile writes a file's element as far as its URL.
func appendFile(b []byte, f cmg.File) []byte {
	b = append(appendEscaped(append(b, `  <File Name="`...), f.Path), `" Size="`...)
	b = append(strconv.AppendInt(b, f.Size, 10), `" SHA256="`...)
	return append(appendDigest(b, f.SHA256), `" URL="`...)
}

// appendEscaped writes an attribute's value. Control characters do not occur:
// names that hold them are refused.
func appendEscaped(b []byte, s string) []byte {
	for {
		i := strings.IndexAny(s, `&<>"`)
		if i < 0 {
			return append(b, s...)
		}
		b = append(b, s[:i]...)
		switch s[i] {
		case '&':
			b = append(b, "&amp;"...)
		case '<':
			b = append(b, "&lt;"...)
		case '>':
			b = append(b, "&gt;"...)
		case '"':
			b = append(b, "&quot;"...)
		}
		s = s[i+1:]
	}
}

// ReadManifest reads a located manifest in format 1, strictly: up to 96 MiB
// and 100,000 files, nothing but what the format has, paths that stay where
// they are unpacked, http or https URLs. What is wrong is ErrInvalid, what is
// too big ErrTooLarge; an error of r is returned, wrapped.
func ReadManifest(r io.Reader) (Located, error) {
	in := &bounded{r: r, left: MaxLocated}
	l, err := readLocated(xml.NewDecoder(in))
	switch {
	case in.err != nil:
		err = in.err
	case err == nil:
		return l, nil
	case cmg.StatusOf(err) == http.StatusInternalServerError: // the decoder's own errors
		err = fmt.Errorf("%w: %w", cmg.ErrInvalid, err)
	}
	return Located{}, fmt.Errorf("read located manifest: %w", err)
}

// bounded reads no more than it may and remembers why it stopped before the
// end.
type bounded struct {
	r    io.Reader
	left int
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		b.err = fmt.Errorf("over %d bytes: %w", MaxLocated, cmg.ErrTooLarge)
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(len(p), b.left+1)])
	b.left -= n
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

func readLocated(d *xml.Decoder) (l Located, err error) {
	root, err := nextStart(d, "Content", "")
	if err != nil {
		return l, err
	}
	if root == nil {
		return l, fmt.Errorf("no element Content: %w", cmg.ErrInvalid)
	}
	files, size, err := l.readHead(root)
	if err != nil {
		return l, err
	}
	for {
		e, err := nextStart(d, "File", "Content")
		if err != nil {
			return l, err
		}
		if e == nil {
			break
		}
		if int64(len(l.URLs)) >= files {
			return l, fmt.Errorf("more than the %d files it speaks of: %w", files, cmg.ErrInvalid)
		}
		if err := l.readFile(e); err != nil {
			return l, err
		}
		if _, err := nextStart(d, "", "File"); err != nil {
			return l, err
		}
	}
	if _, err := nextStart(d, "", ""); err != nil {
		return l, err
	}
	if err := checkManifest(l.Manifest); err != nil {
		return l, err
	}
	if int64(len(l.URLs)) != files || l.Manifest.Size() != size {
		return l, fmt.Errorf("%d files of %d bytes, not the %d of %d it speaks of: %w", len(l.URLs), l.Manifest.Size(), files, size, cmg.ErrInvalid)
	}
	return l, nil
}

// nextStart gives the next start element, which has to be called name; nil
// where instead the element within ends, or, where within is empty, the
// document. Anything else is an error. Nothing stands before the document's
// one element but an XML declaration.
func nextStart(d *xml.Decoder, name, within string) (*xml.StartElement, error) {
	for {
		at := d.InputOffset()
		t, err := d.Token()
		if err == io.EOF && within == "" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if t.Name.Space == "" && t.Name.Local == name && name != "" {
				return &t, nil
			}
			return nil, fmt.Errorf("unexpected element %.40q: %w", t.Name.Local, cmg.ErrInvalid)
		case xml.EndElement:
			if within != "" {
				return nil, nil // the decoder matched its name
			}
		case xml.CharData:
			if strings.Trim(string(t), " \t\r\n") == "" {
				continue
			}
		case xml.ProcInst:
			if at == 0 && t.Target == "xml" {
				continue
			}
		}
		return nil, fmt.Errorf("something other than elements at byte %d: %w", at, cmg.ErrInvalid)
	}
}

// attributes gives the values of exactly the attributes called names, in
// their order.
func attributes(e *xml.StartElement, names ...string) ([]string, error) {
	vs := make([]string, len(names))
	var seen uint64
attrs:
	for _, a := range e.Attr {
		for i, n := range names {
			if a.Name.Space == "" && a.Name.Local == n && seen&(1<<i) == 0 {
				vs[i] = a.Value
				seen |= 1 << i
				continue attrs
			}
		}
		return nil, fmt.Errorf("%s: unknown or repeated attribute %.40q: %w", e.Name.Local, a.Name.Local, cmg.ErrInvalid)
	}
	for i, n := range names {
		if seen&(1<<i) == 0 {
			return nil, fmt.Errorf("%s: no attribute %s: %w", e.Name.Local, n, cmg.ErrInvalid)
		}
	}
	return vs, nil
}

func (l *Located) readHead(e *xml.StartElement) (files, size int64, err error) {
	v, err := attributes(e, "Format", "Package", "Version", "Name", "Files", "Size", "Expires")
	if err != nil {
		return 0, 0, err
	}
	if v[0] != locatedFormat {
		return 0, 0, fmt.Errorf("format %.20q, only %s is known: %w", v[0], locatedFormat, cmg.ErrInvalid)
	}
	m := &l.Manifest
	if m.Package, err = cmg.ParsePackageID(v[1]); err != nil {
		return 0, 0, err
	}
	version, err := number(v[2], 1<<31-1)
	if err != nil {
		return 0, 0, err
	}
	m.Version, m.Name = int(version), v[3]
	if files, err = number(v[4], MaxFiles); err != nil {
		return 0, 0, err
	}
	if size, err = number(v[5], 1<<62); err != nil {
		return 0, 0, err
	}
	l.Expires, err = time.Parse(time.RFC3339, v[6])
	if err != nil || l.Expires.UTC().Format(time.RFC3339) != v[6] {
		return 0, 0, fmt.Errorf("expiry %.40q is not RFC 3339 in UTC: %w", v[6], cmg.ErrInvalid)
	}
	return files, size, nil
}

func (l *Located) readFile(e *xml.StartElement) (err error) {
	v, err := attributes(e, "Name", "Size", "SHA256", "URL")
	if err != nil {
		return err
	}
	f := cmg.File{Path: v[0]}
	if f.Size, err = number(v[1], 1<<62); err != nil {
		return err
	}
	if f.SHA256, err = cmg.ParseDigest(v[2]); err != nil {
		return err
	}
	if err := checkURL(v[3]); err != nil {
		return fmt.Errorf("URL of %.200q: %w", f.Path, err)
	}
	l.Manifest.Files = append(l.Manifest.Files, f)
	l.URLs = append(l.URLs, v[3])
	return nil
}

// checkURL never prints the URL: it opens what it names.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if len(s) > maxURL || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("not a plain http or https URL of at most %d bytes: %w", maxURL, cmg.ErrInvalid)
	}
	return nil
}

// number reads a decimal without sign or leading zeros, up to most.
func number(s string, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("number %.40q is not 0 to %d: %w", s, most, cmg.ErrInvalid)
	}
	return n, nil
}
