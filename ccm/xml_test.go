package ccm

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestParseXML(t *testing.T) {
	e, err := parseXML(`<?xml version="1.0" encoding="utf-16"?><!-- x --><p:A xmlns:p="u" b="1&amp;2">t<C>x</C>u<c> y </c><![CDATA[<]]></p:A> `)
	if err != nil {
		t.Fatal(err)
	}
	if e.name != "A" || e.attr("b") != "1&2" || e.text != "tu<" || len(e.all("c")) != 2 || e.find("C").value() != "x" || e.find("no", "way").value() != "" {
		t.Errorf("got %+v", e)
	}
}

func TestParseXMLRefuses(t *testing.T) {
	many := "<A" + strings.Repeat(" a=''", 2) + "/>"
	for name, text := range map[string]string{
		"nothing":                "",
		"no root":                "<!-- -->",
		"document type":          `<!DOCTYPE a><A/>`,
		"entity of its own":      `<!DOCTYPE a [<!ENTITY x "y">]><A>&x;</A>`,
		"unknown entity":         `<A>&x;</A>`,
		"processing instruction": `<A><?php ?></A>`,
		"two roots":              `<A/><B/>`,
		"text before":            `x<A/>`,
		"text after":             `<A/>x`,
		"not closed":             `<A>`,
		"closed wrongly":         `<A></B>`,
		"closed with a prefix":   `<A></p:A>`,
		"attribute twice":        many,
		"deep":                   strings.Repeat("<A>", maxDepth+1) + strings.Repeat("</A>", maxDepth+1),
		"many elements":          "<A>" + strings.Repeat("<B/>", maxElements) + "</A>",
		"NUL":                    "<A>\x00</A>",
	} {
		if _, err := parseXML(text); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWriteXML(t *testing.T) {
	e := el("A", "b", `<"&'`+"\n").add(&element{name: "C", text: "x]]>y\x00", cdata: true}, el("D")).addText("E", "<&>")
	got := e.String()
	want := `<A b="&lt;&#34;&amp;&#39;&#xA;"><C><![CDATA[x]]]]><![CDATA[>y` + "\uFFFD" + `]]></C><D/><E>&lt;&amp;&gt;</E></A>`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := parseXML(got)
	if err != nil {
		t.Fatal(err)
	}
	if back.String() != strings.NewReplacer("<![CDATA[", "", "]]>", "", "x]]", "x]]&gt;").Replace(strings.ReplaceAll(want, "]]]]><![CDATA[>", "]]")) {
		t.Errorf("read back as %s", back)
	}
}
