package blob

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// The codes of a store's refusals; the package comment says when.
const (
	CodeInvalidName       = "CMGStore_Invalid_Name"
	CodeSignatureRequired = "CMGStore_Signature_Required"
	CodeUnknownKey        = "CMGStore_Unknown_Key"
	CodeInvalidSignature  = "CMGStore_Invalid_Signature"
	CodeExpired           = "CMGStore_Expired"
	CodeNotFound          = "CMGStore_Not_Found"
	CodeMethod            = "CMGStore_Method_Not_Allowed"
	CodeRange             = "CMGStore_Range_Not_Satisfiable"
	CodeFailed            = "CMGStore_Failed"
)

const (
	scheme    = "cmg-store-1"
	readClass = "read" // GET and HEAD
)

// A signer makes and checks signed URLs of scheme 1.
type signer struct {
	base string // without a slash at the end; empty where nothing is signed
	path string // the base's path, under which names are served
	id   string // key id; empty without a key
	macs sync.Pool
}

// newSigner takes a base URL and a key; either may be empty, then the signer
// can check, or neither.
func newSigner(base string, key []byte) (*signer, error) {
	s := &signer{}
	if base != "" {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("store URL %.200q is not http(s)://host[:port][/base]: %w", base, cmg.ErrInvalid)
		}
		s.base, s.path = strings.TrimRight(base, "/"), strings.TrimRight(u.Path, "/")
	}
	if len(key) == 0 {
		return s, nil
	}
	if len(key) < MinKey {
		return nil, fmt.Errorf("store key has %d bytes, fewer than %d: %w", len(key), MinKey, cmg.ErrInvalid)
	}
	key = append([]byte(nil), key...)
	sum := sha256.Sum256(append([]byte(scheme+" key id\n"), key...))
	s.id = hex.EncodeToString(sum[:4])
	s.macs.New = func() any { return hmac.New(sha256.New, key) }
	return s, nil
}

// appendSum writes the signature as it stands in a URL.
func (s *signer) appendSum(b []byte, name, expiry string) []byte {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	text := make([]byte, 0, 256)
	text = append(text, scheme+"\n"+readClass+"\n"...)
	text = append(append(text, name...), '\n')
	text = append(append(text, expiry...), '\n')
	text = append(text, s.id...)
	mac.Write(text)
	return base64.RawURLEncoding.AppendEncode(b, mac.Sum(text[:0]))
}

// url signs name until a time.
func (s *signer) url(name string, until time.Time) (string, error) {
	if s.base == "" || s.id == "" {
		return "", fmt.Errorf("sign URL of %s: the store has no address or no key: %w", name, cmg.ErrUnavailable)
	}
	if err := CheckName(name); err != nil {
		return "", err
	}
	if until.Unix() < 0 {
		return "", fmt.Errorf("sign URL of %s: expiry before 1970: %w", name, cmg.ErrInvalid)
	}
	e := strconv.FormatInt(until.Unix(), 10)
	b := make([]byte, 0, len(s.base)+len(name)+80)
	b = append(append(append(b, s.base...), '/'), name...)
	b = append(append(append(b, "?e="...), e...), "&k="...)
	b = append(append(b, s.id...), "&s="...)
	return string(s.appendSum(b, name, e)), nil
}

// check says why a query does not open name at a time.
func (s *signer) check(name, query string, at time.Time) *cmg.Refusal {
	no := func(code, why string) *cmg.Refusal { return cmg.Refuse(http.StatusForbidden, code, why, nil) }
	if query == "" {
		return no(CodeSignatureRequired, "the store serves signed URLs only")
	}
	var e, k, sig string
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		p, v, _ := strings.Cut(pair, "=")
		var to *string
		switch p {
		case "e":
			to = &e
		case "k":
			to = &k
		case "s":
			to = &sig
		}
		if to == nil || *to != "" || v == "" {
			return no(CodeInvalidSignature, "the query is not exactly e, k and s")
		}
		*to = v
	}
	if e == "" || k == "" || sig == "" {
		return no(CodeSignatureRequired, "the query lacks e, k or s")
	}
	if s.id == "" || k != s.id {
		return no(CodeUnknownKey, "the URL was signed with a key that this store does not have")
	}
	if !hmac.Equal(s.appendSum(nil, name, e), []byte(sig)) {
		return no(CodeInvalidSignature, "the signature is not for this name and expiry")
	}
	until, err := strconv.ParseInt(e, 10, 64)
	if err != nil || !at.Before(time.Unix(until, 0)) {
		return no(CodeExpired, "the URL has expired")
	}
	return nil
}
