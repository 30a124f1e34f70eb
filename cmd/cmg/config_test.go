package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/role/gateway"
)

// in gives a document whose one section, gateway, is text.
func in(t *testing.T, text string) *document {
	t.Helper()
	d, err := parseDocument("cmg.yaml", filepath.FromSlash("/etc/cmg"), []byte("gateway:\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDecode(t *testing.T) {
	d := in(t, `
  name: "443"
  count: 7
  on: true
  wait: 1m
  share: 0.5
  hosts:
    - a:1
    - b:2
  nested: {key: /abs/k}
  targets:
    - url: https://a
      roots: ../r.pem
    - roots: https://b
  resolve:
    "x:1": ["y:2"]
  maybe:
    url: u
`)
	var got testSection
	if err := d.decode("gateway", &got); err != nil {
		t.Fatal(err)
	}
	want := testSection{Name: "443", Count: 7, On: true, Wait: time.Minute, Share: 0.5, Hosts: []string{"a:1", "b:2"},
		Targets: []testTarget{{"https://a", filepath.FromSlash("/etc/r.pem")}, {"", "https://b"}},
		Resolve: map[string][]string{"x:1": {"y:2"}}, Maybe: &testTarget{URL: "u"}}
	want.Nested.Key = "/abs/k"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
}

func TestDecodeFaults(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "  lisen: x\n  nam: y", `cmg.yaml:2:3: unknown key "lisen" in gateway`},
		{"nearest key", "  coutn: 1", `cmg.yaml:2:3: unknown key "coutn" in gateway: did you mean "count"?`},
		{"unknown key below", "  nested:\n    kee: 1", `cmg.yaml:3:5: unknown key "kee" in gateway.nested: did you mean "key"?`},
		{"key of a part", "  parts: 1", `cmg.yaml:2:3: unknown key "parts" in gateway`},
		{"number for text", "  name: 443", `cmg.yaml:2:9: gateway.name: want text, found the number 443: write it in quotes`},
		{"bool for text", "  name: true", `cmg.yaml:2:9: gateway.name: want text, found true: write it in quotes`},
		{"text for number", "  count: many", `cmg.yaml:2:10: gateway.count: want a whole number, found the text "many"`},
		{"text for bool", "  on: yes", `cmg.yaml:2:7: gateway.on: want true or false, found the text "yes"`},
		{"number for duration", "  wait: 30", `cmg.yaml:2:9: gateway.wait: want a duration such as 30s, 15m or 24h, found the number 30`},
		{"bad duration", "  wait: soon", `cmg.yaml:2:9: gateway.wait: "soon" is not a duration such as 30s, 15m or 24h`},
		{"fraction for number", "  count: 1.5", `cmg.yaml:2:10: gateway.count: "1.5" is not a whole number`},
		{"list for text", "  name: [a]", `cmg.yaml:2:9: gateway.name: want text, found a list`},
		{"text for list", "  hosts: a", `cmg.yaml:2:10: gateway.hosts: want a list, found the text "a"`},
		{"text for section", "  nested: a", `cmg.yaml:2:11: gateway.nested: want keys with values, found the text "a"`},
		{"anchor", "  name: &a x", `gateway.name: anchors, aliases, merges and tags are not read here: write the value out`},
		{"two faults", "  count: x\n  on: 3", "cmg.yaml:2:10: gateway.count: want a whole number, found the text \"x\"\ncmg.yaml:3:7: gateway.on: want true or false, found the number 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := in(t, tt.text).decode("gateway", new(testSection))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, tt.want)
			}
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Errorf("%v is not cmg.ErrInvalid", err)
			}
		})
	}
}

func TestDocumentFaults(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown section", "site: {}\ngatewy:\n  name: x\n", `f.yaml:2:1: unknown section "gatewy": did you mean "gateway"?`},
		{"no sections", "just text", `f.yaml:1:1: want sections such as "gateway:", found the text "just text"`},
		{"key twice", "gateway:\n  name: a\n  name: b\n", `f.yaml:3:3: mapping key "name" already defined`},
		{"not YAML", "gateway:\n  name: [a\n", `f.yaml:2:`},
		{"two documents", "site: {}\n---\nsite: {}\n", `f.yaml:3:5: a second YAML document`},
		{"too long", strings.Repeat("#\n", maxConfig), `f.yaml: longer than 1048576 bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseDocument("f.yaml", "/", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, tt.want)
			}
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Errorf("%v is not cmg.ErrInvalid", err)
			}
		})
	}
}

// TestExampleIsComplete holds the example to the structs: it parses, and
// every knob there is stands in it.
func TestExampleIsComplete(t *testing.T) {
	d, err := parseDocument("example.yaml", "/x", []byte(exampleText))
	if err != nil {
		t.Fatal(err)
	}
	for name, fresh := range sections {
		if err := d.decode(name, fresh()); err != nil {
			t.Error(err)
		}
		if !d.has(name) {
			t.Errorf("the example has no section %s", name)
			continue
		}
		wantKeys(t, name, d.sections[name], reflect.TypeOf(fresh()).Elem())
		for _, l := range leavesOf(fresh()) {
			if commentOf(name, l.key()) == "" {
				t.Errorf("%s.%s has no comment behind it, so its flag has no help", name, l.key())
			}
		}
		part, err := parseDocument("part", "/x", []byte(unindent(exampleOf(name))))
		if err != nil || !part.has(name) || len(part.names()) != 1 {
			t.Errorf("the example of %s alone: %v, sections %v", name, err, part.names())
		}
	}
}

func unindent(s string) string { return strings.ReplaceAll("\n"+s, "\n  ", "\n") }

func wantKeys(t *testing.T, where string, n ast.Node, typ reflect.Type) {
	t.Helper()
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
		if s, ok := n.(*ast.SequenceNode); ok {
			n = s.Values[0]
		}
	}
	if typ.Kind() != reflect.Struct || isScalar(typ) {
		return
	}
	entries, _ := entriesOf(n)
	for _, f := range fieldsOf(typ) {
		found := false
		for _, e := range entries {
			if e.Key.GetToken().Value == f.key {
				found = true
				wantKeys(t, where+"."+f.key, e.Value, f.typ)
			}
		}
		if !found {
			t.Errorf("the example lacks %s.%s", where, f.key)
		}
	}
}

func TestRenderIsReadBack(t *testing.T) {
	want := testSection{Name: `a "b" #c: ü`, Count: -1, Small: 3, Share: 0.25, On: true, Wait: 90 * time.Second,
		Hosts: []string{"[::1]:1", "443"}, Targets: []testTarget{{"https://a", "/r"}, {Roots: "/s"}},
		Resolve: map[string][]string{"b:2": {"c:3", "d:4"}, "a:1": {"x"}}}
	want.Nested.Key = "/yes"
	text := render("gateway", &want, "site", &siteSection{Dir: "/x"})
	d, err := parseDocument("rendered", "/", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var got testSection
	if err := d.decode("gateway", &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s\n%s", diff, text)
	}
}

// TestPrecedence: the file, then the environment, then flags.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cmg.yaml")
	text := "gateway:\n  name: file\n  listen: file\n  channel: file\n  identity:\n    key: rel.key\n  drain: 1s\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"CMG_GATEWAY_LISTEN": "env", "CMG_GATEWAY_CHANNEL": "env", "CMG_GATEWAY_IDENTITY_ROOTS": "env.pem",
		"CMG_URL": "https://elsewhere", "CMG_GATEWAY_REUSE_PORT": "true", "CMG_GATEWAY_NAME": "",
	}
	var got gateway.Config
	run := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, lookup: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
		cmd := roleCommand[gateway.Config]{use: "gateway", section: "gateway", run: func(_ context.Context, _ *setup, c gateway.Config, _ func() (gateway.Config, error)) error {
			got = c
			return nil
		}}.command(a)
		a.logFormat, a.logLevel = "auto", "info"
		cmd.SetArgs(args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.Execute()
		if err != nil {
			return exitCode(err), err.Error()
		}
		return exitOK, ""
	}
	if code, text := run("--config", file, "--channel", "flag", "--drain=2s", "--content-url", "u"); code != exitOK {
		t.Fatal(text)
	}
	want := gateway.Config{Name: "file", Listen: "env", Channel: "flag", ReusePort: true, Drain: 2 * time.Second}
	want.Identity.Key, want.Identity.Roots, want.Content.URL = filepath.Join(dir, "rel.key"), "env.pem", "u"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	env["CMG_GATEWAY_DRAIN"] = "soon"
	if code, text := run("--config", file); code != exitUsage || !strings.Contains(text, "environment variable CMG_GATEWAY_DRAIN") {
		t.Errorf("bad variable: code %d, %s", code, text)
	}
	delete(env, "CMG_GATEWAY_DRAIN")
	if code, text := run("--config", file, "--drain", "soon"); code != exitUsage || !strings.Contains(text, "--drain") {
		t.Errorf("bad flag: code %d, %s", code, text)
	}
	if code, text := run("--config", filepath.Join(dir, "none.yaml")); code != exitUsage || !strings.Contains(text, "none.yaml") {
		t.Errorf("no file: code %d, %s", code, text)
	}
}

func FuzzConfiguration(f *testing.F) {
	for name := range sections {
		f.Add([]byte(unindent(exampleOf(name))))
	}
	for _, s := range []string{"", "gateway:", "gateway: {listen: 1}", "a: &a [*a]", "site:\n dir: |\n  x\n", "? - a\n: b", "agent: {resolve: {? a: b}}", "gateway: !!str x", "<<: {a: b}", "- - -", "%YAML 1.2\n---\nsite: ~", "connection_point: {targets: [1, {url: 2}, null]}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseDocument("fuzz", "/fuzz", text)
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Fatalf("%v is not cmg.ErrInvalid", err)
			}
			return
		}
		for _, name := range d.names() {
			c := sections[name]()
			if err := d.decode(name, c); err != nil {
				continue
			}
			// What was read can be written and read again.
			again, err := parseDocument("again", "/", []byte(render(name, c)))
			if err != nil {
				t.Fatalf("%v\n%s", err, render(name, c))
			}
			back := sections[name]()
			if err := again.decode(name, back); err != nil {
				t.Fatalf("%v\n%s", err, render(name, c))
			}
		}
	})
}
