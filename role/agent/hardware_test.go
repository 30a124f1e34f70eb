package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHardware(t *testing.T) {
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const id = "4c4c4544-0042-3510-8052-b4c04f4a3533"
	want := hardware("LAB", file(id))
	if len(want) != 64 || strings.Contains(want, "4c4c4544") {
		t.Fatalf("hash %q", want)
	}
	for name, test := range map[string]struct {
		site string
		file string
		same bool
	}{
		"the same":      {"LAB", file(strings.ToUpper(id) + "\n"), true},
		"another site":  {"XYZ", file(id), false},
		"another id":    {"LAB", file(strings.Replace(id, "4", "5", 1)), false},
		"second choice": {"LAB", file("d34db33fd34db33fd34db33fd34db33f"), false},
	} {
		got := hardware(test.site, "/nonexistent", test.file)
		if len(got) != 64 || (got == want) != test.same {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, text := range map[string]string{"empty": "", "short": "1234", "all F": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "long": strings.Repeat("ab", 40)} {
		if got := hardware("LAB", file(text)); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
