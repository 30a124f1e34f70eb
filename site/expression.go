package site

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/opencmg/cmg"
)

// What a query of a collection may be at most.
const (
	maxExpression = 4096 // bytes
	maxDepth      = 32   // parentheses and "not" within one another
	maxTerms      = 200  // comparisons
)

// plainFields are the fields without a dot. All others are what discovery
// tells, named class.property.
var plainFields = map[string]bool{"id": true, "name": true, "fqdn": true, "agent": true, "approval": true, "proof": true, "hardware": true, "os": true}

// An Expression says which devices a collection holds:
//
//	expression = term { "or" term }
//	term       = factor { "and" factor }
//	factor     = "not" factor | "(" expression ")" | comparison
//	comparison = field ( "=" | "!=" | "like" | "not like" ) string
//	field      = name | name "." name          letters, digits, underscore
//	string     = double-quoted; \" and \\ stand for themselves without \
//
// Words and fields are read, and values compared, without letter case. In a
// pattern of like, % stands for any characters and _ for one. A comparison of a
// field that the device does not have is false, whatever its operator.
type Expression struct {
	op    string // or, and, not, =, like
	field string
	value string // lower case
	parts []*Expression
}

// ParseExpression reads an expression. Whatever it is not is cmg.ErrInvalid,
// with where.
func ParseExpression(text string) (*Expression, error) {
	if len(text) > maxExpression || !utf8.ValidString(text) {
		return nil, fmt.Errorf("read query: longer than %d bytes, or not UTF-8: %w", maxExpression, cmg.ErrInvalid)
	}
	p := &expressionParser{text: text}
	e := p.either(0)
	if p.err == nil && p.next() != "" {
		p.fail("and, or, or the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

// Matches says whether a device with these facts is meant. Names of facts are
// in lower case.
func (e *Expression) Matches(facts map[string]string) bool {
	switch e.op {
	case "or":
		return e.parts[0].Matches(facts) || e.parts[1].Matches(facts)
	case "and":
		return e.parts[0].Matches(facts) && e.parts[1].Matches(facts)
	case "not":
		return !e.parts[0].Matches(facts)
	}
	value, ok := facts[e.field]
	if !ok {
		return false
	}
	value = strings.ToLower(value)
	switch e.op {
	case "=":
		return value == e.value
	case "!=":
		return value != e.value
	case "like":
		return like([]rune(e.value), []rune(value))
	}
	return !like([]rune(e.value), []rune(value)) // not like
}

// like matches a pattern by going back to the last % only, so that it takes
// at most as many steps as the product of both lengths.
func like(pattern, value []rune) bool {
	p, v, star, from := 0, 0, -1, 0
	for v < len(value) {
		switch {
		case p < len(pattern) && pattern[p] == '%':
			star, from = p, v
			p++
		case p < len(pattern) && (pattern[p] == '_' || pattern[p] == value[v]):
			p, v = p+1, v+1
		case star >= 0:
			from++
			p, v = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return p == len(pattern)
}

type expressionParser struct {
	text  string
	at    int
	token string // the next one, once it was looked at
	terms int
	err   error
}

func (p *expressionParser) fail(want string) {
	if p.err == nil {
		p.err = fmt.Errorf("read query at character %d: %s should stand there: %w", utf8.RuneCountInString(p.text[:min(p.at, len(p.text))])+1, want, cmg.ErrInvalid)
	}
}

// next gives the next token: a word in lower case, an operator, a parenthesis
// or a string with its opening quote; empty at the end, and after a fault.
func (p *expressionParser) next() string {
	if p.token != "" || p.err != nil {
		return p.token
	}
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	rest := p.text[p.at:]
	switch {
	case rest == "":
	case strings.HasPrefix(rest, "!="):
		p.token = "!="
	case strings.IndexByte("()=", rest[0]) >= 0:
		p.token = rest[:1]
	case rest[0] == '"':
		p.token = p.quoted(rest)
	default:
		n := strings.IndexFunc(rest, func(r rune) bool { return !isWord(r) })
		if n < 0 {
			n = len(rest)
		}
		if p.token = rest[:n]; n == 0 {
			p.fail("a field, a word or a string")
		}
	}
	return p.token
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.'
}

// quoted gives a string as it stands, with both quotes.
func (p *expressionParser) quoted(rest string) string {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return rest[:i+1]
		case '\\':
			if i++; i >= len(rest) || (rest[i] != '"' && rest[i] != '\\') {
				p.fail(`\" or \\`)
				return ""
			}
		}
	}
	p.fail("the end of the string")
	return ""
}

func (p *expressionParser) take() string {
	t := p.next()
	p.at += len(t)
	p.token = ""
	return t
}

// word takes the next token if it is this word.
func (p *expressionParser) word(w string) bool {
	if !strings.EqualFold(p.next(), w) {
		return false
	}
	p.take()
	return true
}

func (p *expressionParser) either(depth int) *Expression {
	e := p.both(depth)
	for p.err == nil && p.word("or") {
		e = &Expression{op: "or", parts: []*Expression{e, p.both(depth)}}
	}
	return e
}

func (p *expressionParser) both(depth int) *Expression {
	e := p.factor(depth)
	for p.err == nil && p.word("and") {
		e = &Expression{op: "and", parts: []*Expression{e, p.factor(depth)}}
	}
	return e
}

func (p *expressionParser) factor(depth int) *Expression {
	if depth > maxDepth {
		p.fail("nothing nested so deeply")
		return nil
	}
	switch {
	case p.word("not"):
		return &Expression{op: "not", parts: []*Expression{p.factor(depth + 1)}}
	case p.word("("):
		e := p.either(depth + 1)
		if p.err == nil && !p.word(")") {
			p.fail("a closing parenthesis")
		}
		return e
	}
	return p.comparison()
}

func (p *expressionParser) comparison() *Expression {
	if p.terms++; p.terms > maxTerms {
		p.fail("no further comparison")
		return nil
	}
	field := strings.ToLower(p.next())
	class, property, dotted := strings.Cut(field, ".")
	if !plainFields[field] && (!dotted || class == "" || property == "" || strings.Contains(property, ".") || strings.HasPrefix(field, `"`)) {
		p.fail("a field: id, name, fqdn, agent, approval, proof, hardware, os or class.property")
		return nil
	}
	p.take()
	e := &Expression{field: field}
	switch {
	case p.word("="):
		e.op = "="
	case p.word("!="):
		e.op = "!="
	case p.word("like"):
		e.op = "like"
	case p.word("not") && p.word("like"):
		e.op = "not like"
	default:
		p.fail("=, !=, like or not like")
		return nil
	}
	if !strings.HasPrefix(p.next(), `"`) {
		p.fail("a string in double quotes")
		return nil
	}
	quoted := p.take()
	e.value = strings.ToLower(strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1]))
	return e
}
