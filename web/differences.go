package web

import (
	"reflect"
	"slices"
	"strings"
)

// Differences compares two configurations of a role by their JSON names, such
// as "identity.key", and gives the names of what differs. Those that stand
// under fixed cannot change while the role runs: c gets their old values, and
// later names them.
func Differences[C any](old C, c *C, fixed ...string) (changed, later []string) {
	var walk func(a, b reflect.Value, path string)
	walk = func(a, b reflect.Value, path string) {
		t := a.Type()
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			name = path + name
			stays := slices.Contains(fixed, name)
			if a.Field(i).Kind() == reflect.Struct && !stays {
				walk(a.Field(i), b.Field(i), name+".")
				continue
			}
			if reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				continue
			}
			changed = append(changed, name)
			if stays {
				later = append(later, name)
				b.Field(i).Set(a.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(old), reflect.ValueOf(c).Elem(), "")
	return changed, later
}
