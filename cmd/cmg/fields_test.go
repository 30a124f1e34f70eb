package main

import (
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type testSection struct {
	Name   string        `json:"name"`
	Count  int           `json:"count"`
	Small  uint8         `json:"small"`
	Share  float64       `json:"share"`
	On     bool          `json:"on"`
	Wait   time.Duration `json:"wait"`
	Hosts  []string      `json:"hosts"`
	Nested struct {
		Key string `json:"key"`
	} `json:"nested"`
	Targets []testTarget        `json:"targets"`
	Resolve map[string][]string `json:"resolve"`
	Maybe   *testTarget         `json:"maybe"`
	Parts   func()              `json:"-"`
	Silent  string
}

type testTarget struct {
	URL   string `json:"url"`
	Roots string `json:"roots"`
}

func TestLeaves(t *testing.T) {
	var names []string
	for _, l := range leavesOf(new(testSection)) {
		names = append(names, l.key()+" --"+l.flag()+" "+l.variable("my_part"))
	}
	want := []string{
		"name --name CMG_MY_PART_NAME", "count --count CMG_MY_PART_COUNT", "small --small CMG_MY_PART_SMALL",
		"share --share CMG_MY_PART_SHARE", "on --on CMG_MY_PART_ON", "wait --wait CMG_MY_PART_WAIT",
		"hosts --hosts CMG_MY_PART_HOSTS", "nested.key --nested-key CMG_MY_PART_NESTED_KEY",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("leaves (-want +got):\n%s", diff)
	}
}

func TestSetLeaf(t *testing.T) {
	tests := []struct {
		leaf, text string
		want       any
		bad        string
	}{
		{leaf: "name", text: "x, y", want: "x, y"},
		{leaf: "count", text: "-3", want: -3},
		{leaf: "count", text: "3s", bad: `"3s" is not a whole number`},
		{leaf: "small", text: "255", want: uint8(255)},
		{leaf: "small", text: "256", bad: `"256" is not a whole number that is not negative`},
		{leaf: "share", text: "0.5", want: 0.5},
		{leaf: "on", text: "true", want: true},
		{leaf: "on", text: "yes", bad: `"yes" is not true or false`},
		{leaf: "wait", text: "1m30s", want: 90 * time.Second},
		{leaf: "wait", text: "0", want: time.Duration(0)},
		{leaf: "wait", text: "90", bad: `"90" is not a duration such as 30s, 15m or 24h`},
		{leaf: "hosts", text: "a:1, b:2,", want: []string{"a:1", "b:2"}},
		{leaf: "nested.key", text: "k", want: "k"},
	}
	for _, tt := range tests {
		t.Run(tt.leaf+"="+tt.text, func(t *testing.T) {
			leaves := leavesOf(new(testSection))
			l := leaves[slices.IndexFunc(leaves, func(l leaf) bool { return l.key() == tt.leaf })]
			err := l.set(tt.text)
			switch {
			case tt.bad == "" && err != nil:
				t.Fatal(err)
			case tt.bad != "":
				if err == nil || err.Error() != tt.bad {
					t.Fatalf("got error %v, want %s", err, tt.bad)
				}
				return
			}
			if diff := cmp.Diff(tt.want, l.value.Interface()); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "channel", "certificate", "key", "state_dir"}
	for word, want := range map[string]string{
		"listne": "listen", "lisen": "listen", "certifcate": "certificate", "statedir": "state_dir", "kye": "key",
		"zzzzzz": "", "": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// TestPathKeys finds knobs that name a file or folder by their name and
// would not be made absolute.
func TestPathKeys(t *testing.T) {
	looksLike := regexp.MustCompile(`^(dir|key|roots|certificate|.*_(dir|file|key|certificate|roots|folder|path))$`)
	seen := map[string]bool{}
	var walk func(where string, v reflect.Type)
	walk = func(where string, v reflect.Type) {
		switch v.Kind() {
		case reflect.Slice, reflect.Pointer:
			walk(where, v.Elem())
		case reflect.Struct:
			for _, f := range fieldsOf(v) {
				if f.typ.Kind() == reflect.String && looksLike.MatchString(f.key) && !slices.Contains(pathKeys, f.key) {
					t.Errorf("%s.%s looks like a path and is not in pathKeys", where, f.key)
				}
				seen[f.key] = true
				walk(where+"."+f.key, f.typ)
			}
		}
	}
	for name, section := range sections {
		walk(name, reflect.TypeOf(section()).Elem())
	}
	for _, k := range pathKeys {
		if !seen[k] {
			t.Errorf("pathKeys names %q, which is no knob of any section", k)
		}
	}
}
