package ccm

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// What one document may hold. The largest the field sends, an inventory, has
// a depth of 6 and some ten thousand elements.
const (
	maxDepth    = 32
	maxElements = 200_000
	maxAttrs    = 64
)

// An element is one XML element, read whole or about to be written. Names are
// without their namespace prefix: the field's messages have no namespaces.
type element struct {
	name     string
	attrs    []attr
	children []*element
	text     string // all character data directly inside, joined
	cdata    bool   // write text as CDATA
}

type attr struct{ name, value string }

// el makes an element; pairs are attribute names and values in turn.
func el(name string, pairs ...string) *element {
	e := &element{name: name}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.attrs = append(e.attrs, attr{pairs[i], pairs[i+1]})
	}
	return e
}

func (e *element) add(children ...*element) *element {
	e.children = append(e.children, children...)
	return e
}

// addText adds a child that holds only text.
func (e *element) addText(name, text string) *element { return e.add(&element{name: name, text: text}) }

// parseXML reads one document with exactly one root, without document type,
// processing instructions or entities of its own.
func parseXML(text string) (*element, error) {
	d := xml.NewDecoder(strings.NewReader(text))
	// The text has been decoded before; a declaration that says UTF-16 is true
	// of the wire and no longer of the string.
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var p treeParser
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.token(t)
		}
		if err != nil {
			return nil, fmt.Errorf("read XML at byte %d: %v: %w", d.InputOffset(), err, cmg.ErrInvalid)
		}
	}
	if p.root == nil || len(p.open) > 0 {
		return nil, fmt.Errorf("read XML: the document ends early: %w", cmg.ErrInvalid)
	}
	return p.root, nil
}

type treeParser struct {
	root *element
	open []openElement
	n    int
}

type openElement struct {
	*element
	full string // the name as written, with its prefix
	text []byte // gathered apart from element: a text may come in many pieces
}

func (p *treeParser) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		return p.start(t)
	case xml.EndElement:
		k := len(p.open) - 1
		if k < 0 || p.open[k].full != rawName(t.Name) {
			return fmt.Errorf("%.60q is closed and not open", rawName(t.Name))
		}
		p.open[k].element.text = string(p.open[k].text)
		p.open = p.open[:k]
	case xml.CharData:
		if k := len(p.open) - 1; k >= 0 {
			p.open[k].text = append(p.open[k].text, t...)
		} else if strings.Trim(string(t), " \t\r\n") != "" {
			return errors.New("text outside the root")
		}
	case xml.ProcInst:
		if t.Target != "xml" || p.root != nil {
			return errors.New("a processing instruction")
		}
	case xml.Directive:
		return errors.New("a document type or other directive")
	}
	return nil
}

func (p *treeParser) start(t xml.StartElement) error {
	if p.n++; p.n > maxElements {
		return fmt.Errorf("more than %d elements", maxElements)
	}
	if len(p.open) >= maxDepth {
		return fmt.Errorf("deeper than %d elements", maxDepth)
	}
	if len(t.Attr) > maxAttrs {
		return fmt.Errorf("%d attributes on one element", len(t.Attr))
	}
	e := &element{name: t.Name.Local}
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || (a.Name.Space == "" && a.Name.Local == "xmlns") {
			continue
		}
		if _, twice := e.lookup(a.Name.Local); twice {
			return fmt.Errorf("attribute %.60q stands twice", a.Name.Local)
		}
		e.attrs = append(e.attrs, attr{a.Name.Local, a.Value})
	}
	if k := len(p.open) - 1; k >= 0 {
		p.open[k].add(e)
	} else if p.root != nil {
		return errors.New("a second root")
	} else {
		p.root = e
	}
	p.open = append(p.open, openElement{element: e, full: rawName(t.Name)})
	return nil
}

func rawName(n xml.Name) string { return n.Space + ":" + n.Local }

// parseRoot reads a document whose root has the given name.
func parseRoot(text, name string) (*element, error) {
	e, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	if e.name != name {
		return nil, fmt.Errorf("root is %.60q, not %s: %w", e.name, name, cmg.ErrInvalid)
	}
	return e, nil
}

// Root gives the name of a document's root element: what tells one location
// request from another.
func Root(text string) (string, error) {
	e, err := parseXML(text)
	if err != nil {
		return "", err
	}
	return e.name, nil
}

func (e *element) lookup(name string) (string, bool) {
	for _, a := range e.attrs {
		if a.name == name {
			return a.value, true
		}
	}
	return "", false
}

// attr gives an attribute's value without blanks around it, or "".
func (e *element) attr(name string) string {
	v, _ := e.lookup(name)
	return strings.TrimSpace(v)
}

// attrInt gives an attribute as a number from 0 to 2^31-1; absent is 0.
func (e *element) attrInt(name string) (int, error) {
	v := e.attr(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s/@%s %.40q is not a number: %w", e.name, name, v, cmg.ErrInvalid)
	}
	return int(n), nil
}

// all gives the children with a name; they are found without case, because
// the field's writers differ in it.
func (e *element) all(name string) (found []*element) {
	for _, c := range e.children {
		if strings.EqualFold(c.name, name) {
			found = append(found, c)
		}
	}
	return found
}

// find goes down a path of names, always to the first; where one is missing
// it gives an empty element, so that reading on gives empty texts.
func (e *element) find(path ...string) *element {
	for _, name := range path {
		found := e.all(name)
		if len(found) == 0 {
			return &element{name: name}
		}
		e = found[0]
	}
	return e
}

// one gives the only child with a name.
func (e *element) one(name string) (*element, error) {
	found := e.all(name)
	if len(found) != 1 {
		return nil, fmt.Errorf("%s holds %d elements %s instead of one: %w", e.name, len(found), name, cmg.ErrInvalid)
	}
	return found[0], nil
}

// value gives the text inside without blanks around it.
func (e *element) value() string { return strings.TrimSpace(e.text) }

// String writes the element without a declaration or line breaks.
func (e *element) String() string {
	var b strings.Builder
	e.write(&b)
	return b.String()
}

func (e *element) write(b *strings.Builder) {
	b.WriteString("<" + e.name)
	for _, a := range e.attrs {
		b.WriteString(" " + a.name + `="`)
		xml.EscapeText(b, []byte(a.value)) // a strings.Builder does not fail
		b.WriteByte('"')
	}
	if e.text == "" && len(e.children) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	if e.cdata {
		b.WriteString("<![CDATA[" + strings.ReplaceAll(strings.Map(inXML, e.text), "]]>", "]]]]><![CDATA[>") + "]]>")
	} else {
		xml.EscapeText(b, []byte(e.text))
	}
	for _, c := range e.children {
		c.write(b)
	}
	b.WriteString("</" + e.name + ">")
}

// inXML gives r, or U+FFFD where XML 1.0 has no place for it (section 2.2):
// xml.EscapeText does the same outside of CDATA.
func inXML(r rune) rune {
	if r >= 0x20 && r != 0xFFFE && r != 0xFFFF || r == '\t' || r == '\n' || r == '\r' {
		return r
	}
	return '\uFFFD'
}
