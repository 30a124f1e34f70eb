package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// render writes sections as YAML that the decoder reads back to the same:
// pairs of a section's name and a pointer to its struct. What is zero is
// left out.
func render(pairs ...any) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:\n", pairs[i])
		renderStruct(&b, reflect.ValueOf(pairs[i+1]).Elem(), "  ", "  ")
	}
	return b.String()
}

// renderStruct writes the keys of v; first is what stands before the first
// of them, which in a list is a dash.
func renderStruct(b *strings.Builder, v reflect.Value, first, indent string) {
	for _, f := range fieldsOf(v.Type()) {
		fv := v.FieldByIndex(f.index)
		if fv.IsZero() {
			continue
		}
		b.WriteString(first + f.key + ":")
		renderValue(b, fv, indent)
		first = indent
	}
}

func renderValue(b *strings.Builder, v reflect.Value, indent string) {
	deeper := indent + "  "
	switch {
	case isText(v):
		b.WriteString(" " + scalarText(v) + "\n")
	case v.Kind() == reflect.Pointer:
		renderValue(b, v.Elem(), indent)
	case v.Kind() == reflect.Struct:
		b.WriteByte('\n')
		renderStruct(b, v, deeper, deeper)
	case v.Kind() == reflect.Slice:
		b.WriteByte('\n')
		for i := range v.Len() {
			e := v.Index(i)
			if e.Kind() == reflect.Struct && !isText(e) {
				renderStruct(b, e, deeper+"- ", deeper+"  ")
				continue
			}
			b.WriteString(deeper + "- " + scalarText(e) + "\n")
		}
	case v.Kind() == reflect.Map:
		b.WriteByte('\n')
		values := map[string]reflect.Value{}
		for _, k := range v.MapKeys() {
			values[k.String()] = v.MapIndex(k)
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			b.WriteString(deeper + inQuotes(k) + ":")
			renderValue(b, values[k], deeper)
		}
	}
}

// isText says that v is written in one line. A struct that has a short form
// is, unless it holds more than fits there.
func isText(v reflect.Value) bool {
	if !isScalar(v.Type()) {
		return false
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && v.Kind() == reflect.Struct {
		_, err := m.MarshalText()
		return err == nil
	}
	return true
}

func scalarText(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return inQuotes(time.Duration(v.Int()).String())
	case v.Kind() == reflect.String:
		return inQuotes(v.String())
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return inQuotes(string(text))
		}
	}
	return fmt.Sprint(v.Interface())
}

// inQuotes writes text as JSON does, which YAML reads.
func inQuotes(s string) string {
	text, _ := json.Marshal(s) // a string always goes
	return string(text)
}
