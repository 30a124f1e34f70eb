package site

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// ErrTampered tells that the audit log is not as it was written.
var ErrTampered = errors.New("the audit log was changed")

// An AuditEntry is one change of the site: who did what to which.
type AuditEntry struct {
	Seq    int64     `json:"seq"` // from 1, without gaps
	Made   time.Time `json:"made"`
	Actor  string    `json:"actor"`
	Verb   string    `json:"verb"`   // such as token.issue
	Object string    `json:"object"` // such as the token's id
	Detail string    `json:"detail"` // name=value, separated by blanks; never a secret
	Hash   string    `json:"hash"`   // SHA-256 of the entry and of the hash before, hex
}

// An AuditHead is where the log ended at a time. Kept elsewhere and signed,
// it shows that entries at the end are missing.
type AuditHead struct {
	Site string    `json:"site"`
	Seq  int64     `json:"seq"`
	Hash string    `json:"hash"`
	Made time.Time `json:"made"`
}

const auditColumns = `seq, made, actor, verb, object, detail, hash`

var (
	qAuditHead   = query(`SELECT code, audit_seq, audit_hash FROM site WHERE one = 1`)
	qSetHead     = query(`UPDATE site SET audit_seq = ?, audit_hash = ? WHERE one = 1`)
	qInsertAudit = query(`INSERT INTO audit (` + auditColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?)`)
	qAudit       = query(`SELECT ` + auditColumns + ` FROM audit WHERE seq > ? ORDER BY seq LIMIT ?`)
	qAuditLast   = query(`SELECT ` + auditColumns + ` FROM audit ORDER BY seq DESC LIMIT ?`)
)

type actorKey struct{}

// By says who acts in what is done with the context.
func By(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

func (s *Site) actor(ctx context.Context) string {
	if who, ok := ctx.Value(actorKey{}).(string); ok {
		return who
	}
	return s.Actor
}

const maxAuditText = 1024

// audit writes an entry in the transaction of the change it is about: there
// is never one without the other.
func (t *tx) audit(verb, object, detail string) error {
	var code, before string
	var seq int64
	if err := t.row(qAuditHead).Scan(&code, &seq, &before); err != nil {
		return fault("read the end of the audit log", err)
	}
	e := AuditEntry{
		Seq: seq + 1, Made: fromMicros(micros(t.now)), Actor: plain(t.by), Verb: verb, Object: plain(object), Detail: plain(detail),
	}
	e.Hash = e.sum(before)
	if err := t.exec(qInsertAudit, e.Seq, micros(e.Made), e.Actor, e.Verb, e.Object, e.Detail, e.Hash); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return t.exec(qSetHead, e.Seq, e.Hash)
}

// plain keeps what a terminal would obey, and endless text, out of the log.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) { // Cf turns the direction of a line
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxAuditText {
		s = strings.ToValidUTF8(s[:maxAuditText], "") + "…"
	}
	return s
}

// sum gives the hash of e behind the entry whose hash is before. JSON keeps
// the fields apart whatever they hold.
func (e AuditEntry) sum(before string) string {
	b, err := json.Marshal([]any{e.Seq, micros(e.Made), e.Actor, e.Verb, e.Object, e.Detail, before})
	if err != nil {
		panic("site: texts and numbers always go into JSON: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// AuditHead gives the end of the log as the site knows it.
func (s *Site) AuditHead(ctx context.Context) (h AuditHead, err error) {
	h.Made = s.now().UTC().Truncate(time.Second)
	err = s.row(ctx, qAuditHead).Scan(&h.Site, &h.Seq, &h.Hash)
	return h, fault("read the end of the audit log", err)
}

// Audit lists the newest entries, at most limit, the oldest of them first.
func (s *Site) Audit(ctx context.Context, limit int) ([]AuditEntry, error) {
	es, err := list(ctx, s.read, scanAudit, qAuditLast, upTo(limit))
	for i, j := 0, len(es)-1; i < j; i, j = i+1, j-1 {
		es[i], es[j] = es[j], es[i]
	}
	return es, err
}

// VerifyAudit reads the whole log and compares it with itself, with what the
// site's row says of its end, and with heads that were kept elsewhere; nil is
// none. Its error is ErrTampered and says at which entry. It gives how many
// entries there are.
//
// What it cannot see: an end that was cut off together with the site's row
// and with every head that is asked about; entries that somebody with the
// right to write computed anew, if no head of after them was kept elsewhere.
func (s *Site) VerifyAudit(ctx context.Context, heads ...AuditHead) (n int64, err error) {
	t, err := s.read.BeginTx(ctx, nil) // one snapshot
	if err != nil {
		return 0, fault("begin", err)
	}
	defer t.Rollback()
	var end AuditHead
	if err := t.QueryRowContext(ctx, qAuditHead).Scan(&end.Site, &end.Seq, &end.Hash); err != nil {
		return 0, fault("read the end of the audit log", err)
	}
	const page = 1000
	before := ""
	for {
		es, err := list(ctx, t, scanAudit, qAudit, n, page)
		if err != nil {
			return n, err
		}
		for _, e := range es {
			switch {
			case e.Seq != n+1:
				return n, fmt.Errorf("%w: entry %d is missing", ErrTampered, n+1)
			case e.Hash != e.sum(before):
				return n, fmt.Errorf("%w: entry %d (%s %s) does not fit its hash, or the one before it", ErrTampered, e.Seq, e.Verb, e.Object)
			}
			for _, h := range heads {
				if h.Seq == e.Seq && h.Hash != e.Hash {
					return n, fmt.Errorf("%w: entry %d is not the one that stood there %s", ErrTampered, e.Seq, h.Made.Format(time.RFC3339))
				}
			}
			n, before = e.Seq, e.Hash
		}
		if len(es) < page {
			break
		}
	}
	if end.Seq != n || end.Hash != before {
		return n, fmt.Errorf("%w: it ends at entry %d, the site wrote %d", ErrTampered, n, end.Seq)
	}
	for _, h := range heads {
		switch {
		case h.Site != end.Site:
			return n, fmt.Errorf("%w: the head is of site %.20q, the log of %s", ErrTampered, h.Site, end.Site)
		case h.Seq > n:
			return n, fmt.Errorf("%w: it ends at entry %d, and %s there were %d", ErrTampered, n, h.Made.Format(time.RFC3339), h.Seq)
		}
	}
	return n, nil
}

func scanAudit(scan func(...any) error) (e AuditEntry, err error) {
	var made int64
	err = scan(&e.Seq, &made, &e.Actor, &e.Verb, &e.Object, &e.Detail, &e.Hash)
	e.Made = fromMicros(made)
	return e, err
}
