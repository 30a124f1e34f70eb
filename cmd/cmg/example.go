package main

import (
	_ "embed"
	"regexp"
	"strings"
	"sync"
)

// exampleText is the configuration of a whole site with every key there is.
// A comment behind a key is also the help of the key's flag.
//
//go:embed example.yaml
var exampleText string

// exampleOf gives the example of one section, with the comments before it.
func exampleOf(section string) string {
	var out, before []string
	inside := false
	for line := range strings.Lines(exampleText) {
		switch {
		case strings.HasPrefix(line, section+":"):
			inside = true
			out = append(out, before...)
		case strings.TrimSpace(line) == "":
			before = nil
		case inside && !strings.HasPrefix(line, " "):
			return indent(out)
		case !inside && strings.HasPrefix(line, "#"):
			before = append(before, line)
		}
		if inside && strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return indent(out)
}

func indent(lines []string) string { return "  " + strings.Join(lines, "  ") }

var exampleLine = regexp.MustCompile(`^( *)(?:- )?([a-z_]+):(?:.*?)(?: # (.*))?$`)

// comments maps section.key.path to the comment behind the key.
var comments = sync.OnceValue(func() map[string]string {
	all := map[string]string{}
	var path []string
	for line := range strings.Lines(exampleText) {
		m := exampleLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		depth := min(len(m[1])/2, len(path))
		path = append(path[:depth:depth], m[2])
		all[strings.Join(path, ".")] = m[3]
	}
	return all
})

func commentOf(section, key string) string { return comments()[section+"."+key] }
