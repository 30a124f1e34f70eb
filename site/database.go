package site

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/opencmg/cmg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// busyTimeout is how long a writer waits for another process's transaction.
// Transactions here are a few milliseconds, so this is only ever used up by
// a process that hangs.
const busyTimeout = 10 * time.Second

// readers is how many queries run at once; under WAL they never wait for a writer.
const readers = 4

var queries []string // every statement of the package, for the test that asks the planner

func query(q string) string {
	queries = append(queries, q)
	return q
}

// connect opens an existing file. The writer's transactions begin IMMEDIATE:
// one that read first and then wrote would meet SQLITE_BUSY at once, whatever
// the timeout, when another process wrote in between.
func connect(path string) (*Site, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	p := filepath.ToSlash(abs)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/… stands as /C:/… in a file URI
	}
	pragmas := url.Values{"mode": {"rw"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)",
	}}
	dsn := func(key, value string) string {
		q := url.Values{"mode": pragmas["mode"], "_pragma": pragmas["_pragma"]}
		q.Add(key, value)
		return (&url.URL{Scheme: "file", Path: p, RawQuery: q.Encode()}).String()
	}
	w, err := sql.Open("sqlite", dsn("_txlock", "immediate"))
	if err != nil {
		return nil, err
	}
	r, err := sql.Open("sqlite", dsn("_pragma", "query_only(1)"))
	if err != nil {
		w.Close()
		return nil, err
	}
	w.SetMaxOpenConns(1)
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(readers)
	return &Site{write: w, read: r}, nil
}

// recognise refuses a database that is not ours before anything is written
// into it.
func (s *Site) recognise(ctx context.Context) error {
	var n int
	err := s.write.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('site', 'goose_db_version')`).Scan(&n)
	if err != nil {
		return fault("read schema", err)
	}
	if n != 2 {
		return fmt.Errorf("the file is not a site database: %w", cmg.ErrInvalid)
	}
	return nil
}

// migrate applies what is missing. Several processes may do this at once:
// each migration is one transaction, and whoever comes second fails on a
// table that exists, looks again and finds nothing left to do.
func (s *Site) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	sources := p.ListSources()
	newest := sources[len(sources)-1].Version
	for try := 0; ; try++ {
		have, err := p.GetDBVersion(ctx)
		switch {
		case err == nil && have == newest:
			return nil
		case err == nil && have > newest:
			return fmt.Errorf("the database has version %d and this program knows %d: %w", have, newest, cmg.ErrConflict)
		}
		if err == nil {
			_, err = p.Up(ctx)
		}
		if err != nil && (try >= len(sources)+2 || ctx.Err() != nil) {
			return fault("migrate", err)
		}
	}
}

// A tx is a write transaction; it carries its context and its one time.
type tx struct {
	ctx context.Context
	tx  *sql.Tx
	now time.Time
	by  string // who acts
}

// update runs f in a write transaction that is on disk when update returns
// nil and has not happened when it returns an error.
func (s *Site) update(ctx context.Context, f func(*tx) error) error {
	t, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fault("begin", err)
	}
	defer t.Rollback()
	if err := f(&tx{ctx: ctx, tx: t, now: s.now(), by: s.actor(ctx)}); err != nil {
		return err
	}
	return fault("commit", t.Commit())
}

func (t *tx) exec(q string, args ...any) error {
	_, err := t.tx.ExecContext(t.ctx, q, args...)
	return fault("write", err)
}

// changed is exec for statements whose number of rows matters.
func (t *tx) changed(q string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(t.ctx, q, args...)
	if err != nil {
		return 0, fault("write", err)
	}
	return r.RowsAffected()
}

func (t *tx) row(q string, args ...any) *sql.Row { return t.tx.QueryRowContext(t.ctx, q, args...) }

func (s *Site) row(ctx context.Context, q string, args ...any) *sql.Row {
	return s.read.QueryRowContext(ctx, q, args...)
}

// A querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
}

// list collects every row that scan reads.
func list[T any](ctx context.Context, db querier, scan func(func(...any) error) (T, error), q string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, fault("read", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, fault("read", err)
		}
		all = append(all, v)
	}
	return all, fault("read", rows.Err())
}

// fault names what was being done and gives database errors their kind.
func fault(doing string, err error) error {
	if err == nil {
		return nil
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
			return fmt.Errorf("%s: %w (%w)", doing, err, cmg.ErrUnavailable)
		case sqlite3.SQLITE_CONSTRAINT:
			return fmt.Errorf("%s: %w (%w)", doing, err, cmg.ErrConflict)
		case sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%s: %w (%w)", doing, err, cmg.ErrInvalid)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// found turns a missing row into nil.
func found[T any](v T, err error) (*T, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fault("read", err)
	}
	return &v, nil
}

// missing names what was looked for and gives a missing row its kind.
func missing(noun, id string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %.80q: %w", noun, id, cmg.ErrNotFound)
	}
	return fault("read "+noun, err)
}

// gone is missing for a write that met no row.
func gone(noun, id string, changed int64, err error) error {
	if err == nil && changed == 0 {
		return fmt.Errorf("%s %.80q: %w", noun, id, cmg.ErrNotFound)
	}
	return err
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// upTo turns a limit where zero means all into one for LIMIT.
func upTo(limit int) int64 {
	if limit <= 0 {
		return 1 << 62
	}
	return int64(limit)
}
