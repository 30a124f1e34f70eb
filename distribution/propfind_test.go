package distribution

import (
	"bufio"
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func tellAll(t *testing.T, a asking, answer *strings.Builder) {
	t.Helper()
	out := bufio.NewWriter(answer)
	out.WriteString(`<D:multistatus xmlns:D="DAV:">`)
	if err := a.tell(out, "/x", &node{name: "x", modified: added}); err != nil {
		t.Fatal(err)
	}
	out.WriteString("</D:multistatus>")
	out.Flush()
}

func FuzzPropfind(f *testing.F) {
	f.Add(`<?xml version="1.0"?><propfind xmlns="DAV:"><allprop/><include><x/></include></propfind>`)
	f.Add(`<D:propfind xmlns:D="DAV:"><D:prop><D:getcontentlength/><x:y xmlns:x="urn:z">t</x:y></D:prop></D:propfind>`)
	f.Add(`<propfind xmlns="DAV:"><propname/></propfind>`)
	f.Add(`<!DOCTYPE a><propfind xmlns="DAV:"/>`)
	f.Fuzz(func(t *testing.T, text string) {
		a, err := readAsking(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrTooLarge) {
				t.Fatalf("%v is of no kind", err)
			}
			return
		}
		if a.names && a.props != nil || len(a.props) > maxProps {
			t.Fatalf("asks for %+v", a)
		}
		var answer strings.Builder
		tellAll(t, a, &answer)
		var m multistatus
		if err := xml.Unmarshal([]byte(answer.String()), &m); err != nil || len(m.Responses) != 1 {
			t.Fatalf("%v in %s", err, answer.String())
		}
	})
}
