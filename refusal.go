package cmg

import (
	_ "embed"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// A Fact is one thing that was found about a request that was refused: which
// certificate, which claim, which issuer, which time. It is never a secret.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// With adds facts to r, in pairs of name and value, for whoever asks why with
// the request's id. Callers are not shown them. It gives r.
func (r *Refusal) With(facts ...string) *Refusal {
	for i := 0; i+1 < len(facts); i += 2 {
		if facts[i+1] != "" {
			r.Facts = append(r.Facts, Fact{facts[i], facts[i+1]})
		}
	}
	return r
}

// A RefusalRecord is a refusal as it is remembered: what cmg explain tells.
type RefusalRecord struct {
	ID     string    `json:"id"`   // of the request
	Hop    string    `json:"hop"`  // who refused, such as gateway/gateway-1
	Time   time.Time `json:"time"` // by the hop's clock
	Code   string    `json:"code"`
	Status int       `json:"status"`
	Why    string    `json:"why"`             // what the caller was told
	Cause  string    `json:"cause,omitempty"` // what it was not
	Facts  []Fact    `json:"facts,omitempty"`
}

// maxFacts and maxFact bound what a record keeps.
const (
	maxFacts = 48
	maxFact  = 512
)

// Record makes the record of a refusal: err is a *Refusal, or has one in its
// chain; any other error is a fault.
func Record(id, hop string, at time.Time, err error, facts ...Fact) RefusalRecord {
	rec := RefusalRecord{ID: id, Hop: hop, Time: at.UTC(), Status: StatusOf(err), Why: "a fault of the program or its machine"}
	var r *Refusal
	if errors.As(err, &r) {
		rec.Code, rec.Why, rec.Facts = r.Code, r.Why, append(rec.Facts, r.Facts...)
		if r.Err != nil {
			rec.Cause = r.Err.Error()
		}
	} else if err != nil {
		rec.Cause = err.Error()
	}
	rec.Facts = append(rec.Facts, facts...)
	return rec.Bounded()
}

// Bounded cuts what is too long or too much, and what a terminal would obey.
func (r RefusalRecord) Bounded() RefusalRecord {
	for _, s := range []*string{&r.ID, &r.Hop, &r.Code, &r.Why, &r.Cause} {
		*s = tame(*s)
	}
	facts := make([]Fact, 0, min(len(r.Facts), maxFacts))
	for _, f := range r.Facts[:min(len(r.Facts), maxFacts)] {
		facts = append(facts, Fact{tame(f.Name), tame(f.Value)})
	}
	r.Facts = facts
	return r
}

func tame(s string) string {
	if len(s) > maxFact {
		s = s[:maxFact] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

//go:embed docs/refusals.md
var refusalsDocument string

// A Rule is what docs/refusals.md says of a code.
type Rule struct {
	Means  string // which rule was broken
	Remedy string // what to do about it
}

var rules = sync.OnceValue(func() map[string]Rule {
	m := map[string]Rule{}
	for line := range strings.Lines(refusalsDocument) {
		// | `code` | status | means | what to do |; a bar inside is written \|.
		cells := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00"), "|")
		if len(cells) < 6 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		code, ok := strings.CutPrefix(cells[1], "`CMG")
		if !ok || !strings.HasSuffix(code, "`") {
			continue
		}
		m["CMG"+strings.TrimSuffix(code, "`")] = Rule{Means: cells[3], Remedy: cells[4]}
	}
	return m
})

// RuleOf gives what the documentation says of a refusal's code, and whether
// it says anything.
func RuleOf(code string) (Rule, bool) {
	r, ok := rules()[code]
	return r, ok
}

// Evidence gives what a log says of a refusal beside its code: the facts, as
// one group, and what to do.
func Evidence(code string, facts []Fact) []slog.Attr {
	var as []slog.Attr
	if len(facts) > 0 {
		group := make([]slog.Attr, 0, len(facts))
		for _, f := range facts {
			group = append(group, slog.String(strings.ReplaceAll(f.Name, " ", "_"), f.Value))
		}
		as = append(as, slog.Attr{Key: "evidence", Value: slog.GroupValue(group...)})
	}
	if r, ok := RuleOf(code); ok {
		as = append(as, slog.String("remedy", r.Remedy))
	}
	return as
}

// Rules gives every code that the documentation explains.
func Rules() map[string]Rule {
	m := make(map[string]Rule, len(rules()))
	for code, r := range rules() {
		m[code] = r
	}
	return m
}
