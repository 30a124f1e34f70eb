package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// pathKeys are the knobs that name files or folders, in whatever section they
// stand; a path that is relative in a file starts at that file's folder. A
// test finds knobs that look like one and are missing here.
var pathKeys = []string{
	"certificate", "key", "roots", // of an identity, a listener, a target
	"client_certificate", "client_key", "site_certificate",
	"state_dir", "content_dir", "dir",
	"key_file", "password_file", "token_keys", "registration_token_file",
	"map", // or an https:// URL
}

// rootPaths makes the relative paths in v, a section's struct, absolute.
func rootPaths(what string, v reflect.Value, dir string) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			rootPaths(f.key, v.FieldByIndex(f.index), dir)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			rootPaths(what, v.Elem(), dir)
		}
	case reflect.Slice:
		for i := range v.Len() {
			rootPaths(what, v.Index(i), dir)
		}
	case reflect.String:
		p := v.String()
		if p != "" && slices.Contains(pathKeys, what) && !filepath.IsAbs(p) && !strings.Contains(p, "://") {
			v.SetString(filepath.Join(dir, filepath.FromSlash(p)))
		}
	}
}
