package distribution

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencmg/cmg"
)

const (
	davSpace   = "DAV:"
	maxRequest = 64 << 10 // bytes of a PROPFIND's body
	maxProps   = 100      // properties asked for by name
)

// An asking is what a PROPFIND wants (RFC 4918 section 9.1).
type asking struct {
	names bool       // propname: names without values
	props []xml.Name // by name; nil: all
}

// known are the properties there are, in the order in which they are told.
var known = []string{"displayname", "resourcetype", "getcontentlength", "getcontenttype", "getetag", "getlastmodified", "creationdate"}

// readAsking reads the body of a PROPFIND; an empty one asks for all.
func readAsking(r io.Reader) (a asking, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxRequest+1))
	if err != nil {
		return a, err
	}
	if len(b) > maxRequest {
		return a, fmt.Errorf("a request of more than %d bytes: %w", maxRequest, cmg.ErrTooLarge)
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return a, nil
	}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	d.Strict = true
	var open []xml.Name
	what := ""
	for {
		t, err := d.Token()
		if err == io.EOF && len(open) == 0 && what != "" {
			return a, nil
		}
		if err != nil {
			return a, fmt.Errorf("read PROPFIND: %v: %w", err, cmg.ErrInvalid)
		}
		switch t := t.(type) {
		case xml.Directive:
			return a, fmt.Errorf("read PROPFIND: a document type: %w", cmg.ErrInvalid)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.StartElement:
			if err := a.take(t.Name, open, &what); err != nil {
				return a, err
			}
			open = append(open, t.Name)
		}
	}
}

// take reads the beginning of an element inside of open.
func (a *asking) take(n xml.Name, open []xml.Name, what *string) error {
	bad := fmt.Errorf("read PROPFIND: element %.60q is not where one belongs: %w", n.Local, cmg.ErrInvalid)
	switch len(open) {
	case 0:
		if n != (xml.Name{Space: davSpace, Local: "propfind"}) || *what != "" {
			return bad
		}
		return nil
	case 1:
		switch {
		case n.Space != davSpace || n.Local == "include" && *what == "allprop":
			return nil // RFC 4918 section 17: what is unknown is passed over
		case n.Local == "propname":
			a.names = true
		case n.Local == "prop":
			a.props = []xml.Name{}
		case n.Local != "allprop":
			return nil
		}
		if *what != "" {
			return bad
		}
		*what = n.Local
	case 2:
		if open[1] == (xml.Name{Space: davSpace, Local: "prop"}) {
			if len(a.props) >= maxProps {
				return fmt.Errorf("read PROPFIND: more than %d properties: %w", maxProps, cmg.ErrTooLarge)
			}
			if !nameAlone(n.Local) {
				return bad
			}
			a.props = append(a.props, n)
		}
	default:
		if len(open) > 16 {
			return bad
		}
	}
	return nil
}

// nameAlone says whether a name can stand without a prefix: the reader of XML
// looks at the whole only, and takes "x:0" and "x:y:z" for names.
func nameAlone(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	return (unicode.IsLetter(first) || first == '_') && !strings.Contains(s, ":")
}

// propfind answers with the properties of n and, by Depth, of what is below.
func (v *View) propfind(w http.ResponseWriter, r *http.Request, at Place, path string, n *node) error {
	depth := r.Header.Get("Depth")
	switch strings.ToLower(depth) {
	case "0", "1":
	case "", "infinity":
		depth = "infinity"
	default:
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "Depth is 0, 1 or infinity", nil)
	}
	if n.endless && depth == "infinity" {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Depth_Infinite", "this folder is listed with Depth 0 or 1 only", nil)
	}
	a, err := readAsking(r.Body)
	switch {
	case errors.Is(err, cmg.ErrInvalid):
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the PROPFIND cannot be read", err)
	case errors.Is(err, cmg.ErrTooLarge):
		return cmg.Refuse(http.StatusRequestEntityTooLarge, "CMGMP_Too_Large", "the PROPFIND is over a limit", err)
	case err != nil:
		return fmt.Errorf("read PROPFIND: %w: %w", err, cmg.ErrUnavailable)
	}
	self := escape(at.Base)
	if path != "" {
		self += "/" + escape(path)
	}
	return v.multistatus(r.Context(), w, a, self, n, depth)
}

// multistatus writes the answer as it finds it. The first folder is read
// before the answer begins, so that a fault there is told.
func (v *View) multistatus(ctx context.Context, w http.ResponseWriter, a asking, self string, n *node, depth string) error {
	var below []*node
	if n.folder() && depth == "1" {
		var err error
		if below, err = n.children(ctx); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/xml; charset=utf-8")
	h.Set("DAV", "1")
	w.WriteHeader(http.StatusMultiStatus)
	out := bufio.NewWriterSize(w, 32<<10)
	out.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\n" + `<D:multistatus xmlns:D="DAV:">` + "\n")
	if err := a.tell(out, self, n); err != nil {
		return err
	}
	for _, c := range below {
		if err := a.tell(out, self+"/"+escape(c.name), c); err != nil {
			return err
		}
	}
	if n.folder() && depth == "infinity" {
		if err := descend(ctx, n, "", func(path string, c *node) error { return a.tell(out, self+"/"+escape(path), c) }); err != nil {
			return err
		}
	}
	out.WriteString("</D:multistatus>\n")
	return out.Flush()
}

// descend calls f for all below a folder.
func descend(ctx context.Context, n *node, prefix string, f func(path string, n *node) error) error {
	if n.walk != nil {
		return n.walk(ctx, func(path string, c *node) error { return f(prefix+path, c) })
	}
	below, err := n.children(ctx)
	if err != nil {
		return err
	}
	for _, c := range below {
		if err := f(prefix+c.name, c); err != nil {
			return err
		}
		if c.folder() {
			if err := descend(ctx, c, prefix+c.name+"/", f); err != nil {
				return err
			}
		}
	}
	return nil
}

// escape writes a path as a URL does, each segment by itself.
func escape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// tell writes one response.
func (a asking) tell(out *bufio.Writer, href string, n *node) error {
	if n.folder() {
		href += "/"
	}
	out.WriteString("<D:response><D:href>" + escaped(href) + "</D:href>")
	var missing []xml.Name
	out.WriteString("<D:propstat><D:prop>")
	if a.props == nil {
		for _, name := range known {
			if value, ok := n.property(name); ok && a.names {
				out.WriteString("<D:" + name + "/>")
			} else if ok {
				out.WriteString("<D:" + name + ">" + value + "</D:" + name + ">")
			}
		}
	}
	for _, p := range a.props {
		value, ok := "", false
		if p.Space == davSpace {
			value, ok = n.property(p.Local)
		}
		if !ok {
			missing = append(missing, p)
			continue
		}
		out.WriteString("<D:" + p.Local + ">" + value + "</D:" + p.Local + ">")
	}
	out.WriteString("</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>")
	if len(missing) > 0 {
		out.WriteString("<D:propstat><D:prop>")
		for _, p := range missing {
			out.WriteString(`<` + p.Local + ` xmlns="` + escaped(p.Space) + `"/>`)
		}
		out.WriteString("</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>")
	}
	_, err := out.WriteString("</D:response>\n")
	return err
}

// property gives a property's value as XML, and whether n has it.
func (n *node) property(name string) (string, bool) {
	switch name {
	case "displayname":
		return escaped(n.name), true
	case "resourcetype":
		if n.folder() {
			return "<D:collection/>", true
		}
		return "", true
	case "getlastmodified":
		return n.modified.UTC().Format(http.TimeFormat), !n.modified.IsZero()
	case "creationdate":
		return n.modified.UTC().Format(time.RFC3339), !n.modified.IsZero()
	}
	if n.folder() {
		return "", false
	}
	switch name {
	case "getcontentlength":
		return strconv.FormatInt(n.size, 10), true
	case "getcontenttype":
		return "application/octet-stream", true
	case "getetag":
		return escaped(n.etag), true
	}
	return "", false
}

// escaped escapes text for XML.
func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
