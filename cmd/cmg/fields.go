package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A field is a knob of a configuration section: a struct field with a JSON
// name. Parts that main sets carry json:"-" and are none.
type field struct {
	key   string // as in the YAML file
	index []int
	typ   reflect.Type
}

// fieldsOf lists the knobs of a struct in their order; those of embedded
// structs stand as if they were its own.
func fieldsOf(t reflect.Type) []field {
	var fs []field
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" {
			continue
		}
		fs = append(fs, field{key: key, index: f.Index, typ: f.Type})
	}
	return fs
}

func fieldNamed(t reflect.Type, key string) (field, bool) {
	for _, f := range fieldsOf(t) {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

// A leaf is a knob that one line of text can set: by the environment or by a
// flag.
type leaf struct {
	path  []string // the keys that lead to it
	value reflect.Value
}

// leavesOf lists the leaves of a section; into points to its struct.
func leavesOf(into any) []leaf {
	var ls []leaf
	var walk func(v reflect.Value, path []string)
	walk = func(v reflect.Value, path []string) {
		for _, f := range fieldsOf(v.Type()) {
			fv, p := v.FieldByIndex(f.index), append(path[:len(path):len(path)], f.key)
			switch {
			case isScalar(f.typ), f.typ.Kind() == reflect.Slice && isScalar(f.typ.Elem()):
				ls = append(ls, leaf{path: p, value: fv})
			case f.typ.Kind() == reflect.Struct:
				walk(fv, p)
			}
		}
	}
	walk(reflect.ValueOf(into).Elem(), nil)
	return ls
}

// key is the leaf's place in the section: identity.key.
func (l leaf) key() string { return strings.Join(l.path, ".") }

// flag is the leaf's command-line flag: identity-key.
func (l leaf) flag() string {
	return strings.ReplaceAll(strings.Join(l.path, "-"), "_", "-")
}

// variable is the leaf's environment variable: CMG_GATEWAY_IDENTITY_KEY.
func (l leaf) variable(section string) string {
	return strings.ToUpper("CMG_" + section + "_" + strings.Join(l.path, "_"))
}

// set gives the leaf the value that text names; several texts are separated
// by commas.
func (l leaf) set(text string) error {
	if l.value.Kind() != reflect.Slice {
		return setScalar(l.value, text)
	}
	parts := reflect.MakeSlice(l.value.Type(), 0, 1)
	for p := range strings.SplitSeq(text, ",") {
		if p = strings.TrimSpace(p); p != "" {
			one := reflect.New(l.value.Type().Elem()).Elem()
			if err := setScalar(one, p); err != nil {
				return err
			}
			parts = reflect.Append(parts, one)
		}
	}
	l.value.Set(parts)
	return nil
}

// applyEnvironment sets every leaf whose variable is set and not empty.
// Other variables that begin with CMG_ mean nothing here.
func applyEnvironment(section string, into any, lookup func(string) (string, bool)) error {
	for _, l := range leavesOf(into) {
		name := l.variable(section)
		text, ok := lookup(name)
		if !ok || text == "" {
			continue
		}
		if err := l.set(text); err != nil {
			return usage("environment variable %s: %w", name, err)
		}
	}
	return nil
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isScalar(t reflect.Type) bool {
	if t == durationType || reflect.PointerTo(t).Implements(unmarshalerType) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// setScalar sets v to what text says; the error says what it should say.
func setScalar(v reflect.Value, text string) error {
	wrong := func(want string) error { return fmt.Errorf("%.80q is not %s", text, want) }
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		if text == "0" {
			d, err = 0, nil
		}
		if err != nil {
			return wrong("a duration such as 30s, 15m or 24h")
		}
		v.SetInt(int64(d))
		return nil
	case reflect.PointerTo(v.Type()).Implements(unmarshalerType):
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	case v.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return wrong("true or false")
		}
		v.SetBool(b)
		return nil
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return wrong("a whole number")
		}
		v.SetInt(n)
		return nil
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return wrong("a whole number that is not negative")
		}
		v.SetUint(n)
		return nil
	case v.CanFloat():
		x, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			return wrong("a number")
		}
		v.SetFloat(x)
		return nil
	}
	return fmt.Errorf("a %s cannot be set from text", v.Type())
}
