package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/opencmg/cmg"
)

// maxConfig bounds what is read as a configuration file.
const maxConfig = 1 << 20

// A document is a configuration file: one section a role.
type document struct {
	file     string // for messages; empty where there is none
	dir      string // absolute: relative paths in the file start here
	sections map[string]ast.Node
}

// A problem is one thing that is wrong in a configuration file.
type problem struct {
	file         string
	line, column int
	text         string
}

func (p problem) String() string {
	if p.line == 0 {
		return p.file + ": " + p.text
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.file, p.line, p.column, p.text)
}

// problems is an error that lists all that is wrong, a line each.
type problems []problem

func (ps problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps problems) Is(target error) bool { return target == cmg.ErrInvalid }

// orNil gives the problems as an error, nil where there are none.
func (ps problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// openDocument reads a configuration file and finds its sections. An empty
// name is a document without sections.
func openDocument(file string) (*document, error) {
	if file == "" {
		return &document{}, nil
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, usage("configuration: %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, usage("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, usage("configuration: %w", err)
	}
	return parseDocument(file, filepath.Dir(abs), text)
}

// parseDocument reads YAML whose outermost keys are the names of sections.
func parseDocument(file, dir string, text []byte) (*document, error) {
	d := &document{file: file, dir: dir, sections: map[string]ast.Node{}}
	if len(text) > maxConfig {
		return nil, problems{{file: file, text: fmt.Sprintf("longer than %d bytes", maxConfig)}}
	}
	body, err := parseYAML(file, text)
	if err != nil || body == nil {
		return d, err
	}
	entries, ok := entriesOf(body)
	if !ok {
		return nil, problems{d.at(body, "want sections such as \"gateway:\", found %s", describe(body))}
	}
	var ps problems
	for _, e := range entries {
		name := e.Key.GetToken().Value
		if !slices.Contains(sectionNames, name) {
			ps = append(ps, d.at(e.Key, "unknown section %q%s", name, didYouMean(name, sectionNames)))
			continue
		}
		d.sections[name] = e.Value
	}
	return d, ps.orNil()
}

// parseYAML gives the one document's outermost node, nil where it is empty.
func parseYAML(file string, text []byte) (body ast.Node, err error) {
	defer func() { // the parser is not ours: a file may not end the process
		if r := recover(); r != nil {
			body, err = nil, problems{{file: file, text: fmt.Sprintf("cannot be read as YAML: %v", r)}}
		}
	}()
	tree, err := parser.ParseBytes(bytes.TrimPrefix(text, []byte("\ufeff")), 0)
	if err != nil {
		p := problem{file: file, text: err.Error()}
		var y yaml.Error
		if errors.As(err, &y) {
			p.text = y.GetMessage()
			if t := y.GetToken(); t != nil && t.Position != nil {
				p.line, p.column = t.Position.Line, t.Position.Column
			}
		}
		return nil, problems{p}
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, problems{(&document{file: file}).at(doc.Body, "a second YAML document: one file is one document")}
		}
		body = doc.Body
	}
	return body, nil
}

// at makes a problem of where n stands.
func (d *document) at(n ast.Node, format string, a ...any) problem {
	p := problem{file: d.file, text: fmt.Sprintf(format, a...)}
	if t := n.GetToken(); t != nil && t.Position != nil {
		p.line, p.column = t.Position.Line, t.Position.Column
	}
	return p
}

// has reports whether the document holds the section.
func (d *document) has(section string) bool {
	_, ok := d.sections[section]
	return ok
}

// names lists the document's sections, sorted.
func (d *document) names() []string { return slices.Sorted(maps.Keys(d.sections)) }

// decode fills into, which points to the section's struct, from the document
// and makes its paths absolute. What the document does not say stays as it is.
func (d *document) decode(section string, into any) error {
	node, ok := d.sections[section]
	if !ok {
		return nil
	}
	dec := decoder{doc: d, section: section}
	v := reflect.ValueOf(into).Elem()
	dec.value(node, v, section)
	if len(dec.problems) == 0 {
		rootPaths(section, v, d.dir)
	}
	return dec.problems.orNil()
}
