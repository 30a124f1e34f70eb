package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// writeEnvironment writes env.sh, with a session token of an agent's.
func (l *lab) writeEnvironment(ctx context.Context, sum *labSummary) error {
	db, err := l.site.open(ctx, l.now)
	if err != nil {
		return err
	}
	sum.token, err = l.site.newToken(ctx, db, auth.Claims{Kind: auth.TokenSession, Device: sum.device()}, sessionLife, 0)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	text := "# For trying things by hand:  . " + shellWord(l.file("env.sh")) + "\n"
	for _, v := range [][2]string{
		{"CMG_LAB", l.dir}, {"CMG_SITE", string(l.site)}, {"CMG_URL", l.url()},
		{"CMG_RESOLVE", l.service() + ":127.0.0.1"}, {"CMG_CA", l.file("certs", "roots.crt")},
		{"CMG_CLIENT_CERT", l.file("certs", "curl.crt")}, {"CMG_CLIENT_KEY", l.file("certs", "curl.key")},
		{"CMG_TOKEN", sum.token}, {"CMG_MP_MUTUAL", l.prefix(cmg.ProofCertificate)}, {"CMG_MP_SERVER", l.prefix(cmg.ProofToken)},
		{"CMG_PACKAGE", string(l.pack.ID)},
	} {
		text += "export " + v[0] + "=" + inShellQuotes(v[1]) + "\n"
	}
	return os.WriteFile(l.file("env.sh"), []byte(text), 0o600)
}

func inShellQuotes(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// shellWord writes s as a shell reads one word, in quotes where it needs them.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return inShellQuotes(s)
}
