package distribution

import (
	"bufio"
	"html"
	"net/http"
	"strconv"
)

// list answers with a folder as HTML, in the form that the field's programs
// read (PROTOCOL 7.2): "&lt;dir&gt" without a semicolon, links that begin with
// http:// whatever the scheme is.
func (v *View) list(w http.ResponseWriter, r *http.Request, at Place, path string, n *node) error {
	below, err := n.children(r.Context())
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'")
	if r.Method == http.MethodHead {
		return nil
	}
	self := "http://" + at.Host + escape(at.Base) + "/"
	if path != "" {
		self += escape(path) + "/"
	}
	out := bufio.NewWriterSize(w, 32<<10)
	out.WriteString("<html><head><title>" + html.EscapeString(n.name) + "</title></head><body><pre>\n")
	for _, c := range below {
		what := "&lt;dir&gt"
		if !c.folder() {
			what = strconv.FormatInt(c.size, 10)
		}
		out.WriteString(what + ` <a href="` + html.EscapeString(self+escape(c.name)) + `">` + html.EscapeString(c.name) + "</a><br>\n")
	}
	out.WriteString("</pre></body></html>\n")
	return out.Flush()
}
