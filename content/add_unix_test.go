//go:build !windows

package content_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

// TestAddRefuses plants what a package cannot hold. These names and kinds
// exist on systems of the Unix kind only.
func TestAddRefuses(t *testing.T) {
	file := func(name string) func(string) error {
		return func(dir string) error {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		}
	}
	link := func(target, name string) func(string) error {
		return func(dir string) error { return os.Symlink(target, filepath.Join(dir, name)) }
	}
	for what, c := range map[string]struct {
		plant func(dir string) error
		says  string
	}{
		"link to a file":   {link("ok", "link"), `"link" is a symbolic link`},
		"link to a folder": {link("/etc", "sub"), `"sub" is a symbolic link`},
		"link to nothing":  {link("nowhere", "sub"), `"sub" is a symbolic link`},
		"pipe":             {func(d string) error { return syscall.Mkfifo(filepath.Join(d, "pipe"), 0o600) }, `"pipe" is a named pipe`},
		"device":           {func(d string) error { return syscall.Mknod(filepath.Join(d, "null"), syscall.S_IFCHR|0o600, 1<<8|3) }, `"null" is a device`},
		"backslash":        {file(`a\b`), `a\\b`},
		"stream":           {file("f:ads"), "f:ads"},
		"line feed":        {file("a\nb"), `a\nb`},
		"not UTF-8":        {file("a\xffb"), `a\xffb`},
		"case":             {file("OK"), "stands twice"},
		"partial folder":   {file(".CMG-partial/x"), ".CMG-partial/x"},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDepot(t)
			dir := folder(t, map[string]int{"ok": 5})
			if err := c.plant(dir); err != nil {
				t.Skip(err)
			}
			_, _, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "LAB00001", Version: 1})
			if !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want ErrInvalid with %s", err, c.says)
			}
			if left := infos(t, d); len(left) != 0 {
				t.Errorf("the store holds %v", left)
			}
		})
	}
}
