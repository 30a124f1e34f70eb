package site

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestExpression(t *testing.T) {
	facts := map[string]string{"os": "Linux", "name": "WEB-7", "fqdn": "", "win32_bios.serial": `a"b\c`, "agent": "5.00.9128"}
	for text, want := range map[string]bool{
		`os = "linux"`:                            true,
		`OS = "LINUX" and Name LIKE "web-%"`:      true,
		`os = "linux" and name like "DB-%"`:       false,
		`os = "windows" or name like "web-_"`:     true,
		`os = "windows" or name like "web-__"`:    false,
		`name not like "web%"`:                    false,
		`name not like "db%"`:                     true,
		`name != "x"`:                             true,
		`hardware = "x" or hardware != "x"`:       false, // it has none
		`hardware not like "%"`:                   false,
		`not hardware = "x"`:                      true,
		`not (os = "linux" and name = "web-7")`:   false,
		`not os = "windows" and not name = "x"`:   true,
		`os = "x" and os = "y" or os = "linux"`:   true, // and binds closer
		`os = "linux" or os = "x" and os = "y"`:   true,
		`(os = "linux" or os = "x") and os = "y"`: false,
		`fqdn = ""`:                     true,
		`fqdn like "%"`:                 true,
		`win32_bios.serial = "A\"B\\C"`: true,
		`win32_bios.serial like "%\"%"`: true,
		`name like "%e%b%7"`:            true,
		`name like "%"` + strings.Repeat(` and name = "web-7"`, 150): true,
		"\tos=\"linux\"\n": true,
	} {
		e, err := ParseExpression(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := e.Matches(facts); got != want {
			t.Errorf("%.100s: %v", text, got)
		}
	}
	for text, says := range map[string]string{
		"":                             "character 1",
		`os`:                           "=, !=",
		`os =`:                         "a string",
		`os = linux`:                   "a string",
		`os = 'linux'`:                 "a field, a word or a string",
		`os = "linux`:                  "the end of the string",
		`os = "a\n"`:                   `\" or \\`,
		`os = "a" name = "b"`:          "and, or, or the end",
		`os = "a" and`:                 "a field",
		`(os = "a"`:                    "parenthesis",
		`os = "a")`:                    "and, or, or the end",
		`uptime = "1"`:                 "a field",
		`a.b.c = "1"`:                  "a field",
		`.b = "1"`:                     "a field",
		`os; DROP TABLE devices`:       "a field, a word",
		`os not = "1"`:                 "=, !=",
		strings.Repeat("(", 40) + `os`: "so deeply",
		strings.Repeat("not ", 40):     "so deeply",
		`os = "a"` + strings.Repeat(` or os = "a"`, 200): "no further",
		strings.Repeat(" ", 4097):                        "4096",
		"os = \"\xff\"":                                  "UTF-8",
	} {
		if _, err := ParseExpression(text); !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want it to say %q", text, err, says)
		}
	}
}

func FuzzExpression(f *testing.F) {
	f.Add(`os = "linux" and name like "WEB-%"`)
	f.Add(`not (a.b != "\"" or name not like "_")`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpression(text)
		if err == nil {
			e.Matches(map[string]string{"os": text, "name": text})
		} else if !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
