package main

import (
	"reflect"

	"github.com/goccy/go-yaml/ast"
)

// A decoder puts a section of a document into a struct and gathers all that
// is wrong with it.
type decoder struct {
	doc      *document
	section  string
	problems problems
}

func (d *decoder) wrong(n ast.Node, format string, a ...any) {
	d.problems = append(d.problems, d.doc.at(n, format, a...))
}

// value puts n into v; what names the place for messages.
func (d *decoder) value(n ast.Node, v reflect.Value, what string) {
	switch n := n.(type) {
	case nil:
		return
	case *ast.NullNode:
		return // "key:" and nothing behind it: not set
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.wrong(n, "%s: anchors, aliases, merges and tags are not read here: write the value out", what)
		return
	}
	t := v.Type()
	switch {
	case isScalar(t) && !(t.Kind() == reflect.Struct && isMapping(n)):
		d.scalar(n, v, what)
	case t.Kind() == reflect.Pointer:
		fresh := reflect.New(t.Elem())
		d.value(n, fresh.Elem(), what)
		v.Set(fresh)
	case t.Kind() == reflect.Struct:
		d.structure(n, v, what)
	case t.Kind() == reflect.Slice:
		d.list(n, v, what)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		d.table(n, v, what)
	default:
		d.wrong(n, "%s: a %s cannot be configured", what, t)
	}
}

func (d *decoder) structure(n ast.Node, v reflect.Value, what string) {
	entries, ok := entriesOf(n)
	if !ok {
		d.wrong(n, "%s: want keys with values, found %s", what, describe(n))
		return
	}
	var known []string
	for _, f := range fieldsOf(v.Type()) {
		known = append(known, f.key)
	}
	for _, e := range entries {
		key := e.Key.GetToken().Value
		f, ok := fieldNamed(v.Type(), key)
		if !ok {
			d.wrong(e.Key, "unknown key %q in %s%s", key, what, didYouMean(key, known))
			continue
		}
		d.value(e.Value, v.FieldByIndex(f.index), what+"."+key)
	}
}

func (d *decoder) list(n ast.Node, v reflect.Value, what string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(n, "%s: want a list, found %s", what, describe(n))
		return
	}
	all := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		d.value(e, all.Index(i), what)
	}
	v.Set(all)
}

func (d *decoder) table(n ast.Node, v reflect.Value, what string) {
	entries, ok := entriesOf(n)
	if !ok {
		d.wrong(n, "%s: want names with values, found %s", what, describe(n))
		return
	}
	all := reflect.MakeMap(v.Type())
	for _, e := range entries {
		key := e.Key.GetToken().Value
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(e.Value, one, what+"."+key)
		all.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), one)
	}
	v.Set(all)
}

// scalar puts one value into v. YAML's types count: a number is no text, so
// that 0123 or 1e3 never turn into something else unseen.
func (d *decoder) scalar(n ast.Node, v reflect.Value, what string) {
	t, text, fits := v.Type(), "", false
	duration := t == durationType
	wantsText := v.Kind() == reflect.String || duration ||
		v.Kind() != reflect.Bool && reflect.PointerTo(t).Implements(unmarshalerType)
	hint := ""
	switch n := n.(type) {
	case *ast.StringNode:
		text, fits = n.Value, wantsText
	case *ast.LiteralNode:
		text, fits = n.Value.Value, wantsText
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.GetToken().Value
		fits = !wantsText && (v.Kind() == reflect.Bool) == (n.Type() == ast.BoolType) || duration && text == "0"
		if wantsText && !duration {
			hint = ": write it in quotes"
		}
	}
	if !fits {
		d.wrong(n, "%s: want %s, found %s%s", what, wanted(t), describe(n), hint)
		return
	}
	if err := setScalar(v, text); err != nil {
		d.wrong(n, "%s: %v", what, err)
	}
}

// entriesOf gives the entries of a mapping, which the parser hands out in two
// shapes.
func entriesOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func isMapping(n ast.Node) bool {
	_, ok := entriesOf(n)
	return ok
}

func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 30s, 15m or 24h"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String, reflect.PointerTo(t).Implements(unmarshalerType):
		return "text"
	case t.Kind() == reflect.Float32, t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// describe says what n is, for people.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return "the text " + quoted(n.Value)
	case *ast.IntegerNode, *ast.FloatNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return n.GetToken().Value
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.LiteralNode:
		return "a block of text"
	}
	return "something else"
}

func quoted(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return `"` + s + `"`
}
