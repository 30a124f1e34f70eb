package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

func trustCommand(a *app) *cobra.Command {
	return group("trust", "Say which authorities' client certificates are trusted", `Roots and intermediates of your PKI are published to every gateway, with where
to ask whether their certificates were revoked. The site fetches lists of
revoked certificates and asks responders; gateways ask nobody but the site.`,
		trustAddCommand(a), trustListCommand(a), trustSetCommand(a), trustRemoveCommand(a), trustRevocationCommand(a), trustRefreshCommand(a))
}

// revocationFlags are what can be set for one authority.
func revocationFlags(c *cobra.Command, i *cmg.IssuerRevocation) {
	c.Flags().StringVar((*string)(&i.Mode), "revocation", "", "hard, soft or off, for certificates that it issued (default: that of all)")
	c.Flags().StringSliceVar(&i.CRL, "crl", nil, "address of its list of revoked certificates, beside those that its certificates name")
	c.Flags().StringSliceVar(&i.OCSP, "ocsp", nil, "address of its responder, in place of those that its certificates name")
}

func trustAddCommand(a *app) *cobra.Command {
	var i cmg.IssuerRevocation
	c := &cobra.Command{Use: "add FILE", Short: "Trust the authorities in a PEM file", Args: takes("FILE"),
		Long: `Trusts every authority in a PEM file: roots, and intermediates, which clients
then need not send. Gateways know within seconds.`,
		Example: "  cmg trust add corporate-ca.pem\n  cmg trust add issuing-ca.pem --crl http://pki.inside.example/issuing.crl"}
	revocationFlags(c, &i)
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		bundle, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		if err := i.Check(); err != nil {
			return err
		}
		certs, err := auth.ParseCertificates(bundle)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if err := db.AddAnchor(ctx, bundle); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		for _, cert := range certs {
			if i.Mode != "" || len(i.CRL)+len(i.OCSP) > 0 {
				i.Issuer = auth.IssuerID(cert)
				if err := db.SetIssuerRevocation(ctx, i); err != nil {
					return err
				}
			}
			fmt.Fprintf(a.stdout, "%s  %s\n", auth.Thumbprint(cert), cert.Subject)
			for _, why := range auth.Doubts(cert, a.now()) {
				fmt.Fprintf(a.stderr, "%s: %s\n", cert.Subject, why)
			}
		}
		return nil
	})
}

// A trusted is one authority as cmg trust list shows it.
type trusted struct {
	Thumbprint string                  `json:"thumbprint"`
	Subject    string                  `json:"subject"`
	Root       bool                    `json:"root"`
	NotAfter   time.Time               `json:"not_after"`
	Set        cmg.IssuerRevocation    `json:"set"`
	Lists      []site.RevocationSource `json:"lists"`
}

func readTrusted(ctx context.Context, db *site.Site) (all []trusted, r cmg.Revocation, err error) {
	texts, err := db.Anchors(ctx)
	if err != nil {
		return nil, r, err
	}
	if r, err = db.Revocation(ctx); err != nil {
		return nil, r, err
	}
	sources, err := db.RevocationSources(ctx)
	if err != nil {
		return nil, r, err
	}
	certs, err := auth.ParseCertificates([]byte(strings.Join(texts, "\n")))
	for _, c := range certs {
		t := trusted{Thumbprint: auth.Thumbprint(c), Subject: c.Subject.String(), Root: auth.IsRoot(c), NotAfter: c.NotAfter.UTC()}
		id := auth.IssuerID(c)
		for _, i := range r.Issuers {
			if i.Issuer == id {
				t.Set = i
			}
		}
		for _, s := range sources {
			if s.Issuer == id {
				t.Lists = append(t.Lists, s)
			}
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b trusted) int { return strings.Compare(a.Subject+a.Thumbprint, b.Subject+b.Thumbprint) })
	return all, r, err
}

func trustListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the authorities, and their lists of revoked certificates", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		all, r, err := readTrusted(ctx, db)
		if err != nil {
			return err
		}
		if asJSON {
			version, err := db.PublicationVersion(ctx)
			if err != nil {
				return err
			}
			return writeJSON(a.stdout, map[string]any{"publication": version, "revocation": modeOf(r.Mode), "grace_seconds": r.Grace, "authorities": all})
		}
		fmt.Fprintf(a.stdout, "revocation %s, grace %s\n", modeOf(r.Mode), time.Duration(r.Grace)*time.Second)
		return a.table("THUMBPRINT\tKIND\tENDS\tREVOCATION\tREVOKED\tNEXT LIST\tSUBJECT", func(w *tabwriter.Writer) {
			for _, t := range all {
				kind, mode := "intermediate", t.Set.Mode
				if t.Root {
					kind = "root"
				}
				if mode == "" {
					mode = modeOf(r.Mode)
				}
				revoked, next := "-", "-"
				for _, l := range t.Lists {
					revoked, next = fmt.Sprint(l.Revoked), stamp(l.Next)
					if l.Problem != "" {
						next += " (failing)"
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Thumbprint[:16], kind, stamp(t.NotAfter), mode, revoked, next, t.Subject)
			}
		})
	})
}

func modeOf(m cmg.RevocationMode) cmg.RevocationMode {
	if m == "" {
		return cmg.RevocationHard
	}
	return m
}

// anchor finds the one authority whose thumbprint begins so.
func anchor(ctx context.Context, db *site.Site, begins string) (*x509.Certificate, error) {
	texts, err := db.Anchors(ctx)
	if err != nil {
		return nil, err
	}
	certs, err := auth.ParseCertificates([]byte(strings.Join(texts, "\n")))
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for _, c := range certs {
		if len(begins) >= 8 && strings.HasPrefix(auth.Thumbprint(c), strings.ToLower(begins)) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("authority with a thumbprint that begins with %.80q (at least 8 digits): there are %d: %w", begins, len(found), cmg.ErrNotFound)
	}
	return found[0], nil
}

func trustSetCommand(a *app) *cobra.Command {
	var i cmg.IssuerRevocation
	c := &cobra.Command{Use: "set THUMBPRINT", Short: "Say where an authority's revoked certificates are told", Args: takes("THUMBPRINT"),
		Long: "Sets what holds for the certificates that one authority issued, in place of\nwhat was set for it before. Without flags that is taken back.", Example: "  cmg trust set 3f2a91c4 --crl http://pki.inside.example/issuing.crl --revocation soft"}
	revocationFlags(c, &i)
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		cert, err := anchor(ctx, db, args[0])
		if err != nil {
			return err
		}
		i.Issuer = auth.IssuerID(cert)
		return db.SetIssuerRevocation(ctx, i)
	})
}

func trustRemoveCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "remove THUMBPRINT", Short: "Trust an authority no more", Args: takes("THUMBPRINT")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		cert, err := anchor(ctx, db, args[0])
		if err != nil {
			return err
		}
		if err := db.RemoveAnchor(ctx, auth.Thumbprint(cert)); err != nil {
			return err
		}
		if err := db.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: auth.IssuerID(cert)}); err != nil {
			return err
		}
		return db.ForgetRevocation(ctx, auth.IssuerID(cert))
	})
}

func trustRevocationCommand(a *app) *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{Use: "revocation hard|soft|off", Short: "Say what happens when nobody knows whether a certificate is revoked", Args: takes("MODE"),
		Long: `hard refuses a certificate of which it cannot be found out whether it was
revoked; soft lets it in; off does not look. A list, and a responder's answer,
is believed for the grace after it has ended. A certificate that is known to be
revoked is refused in hard and soft.`}
	c.Flags().DurationVar(&grace, "grace", site.DefaultGrace, "how long an answer is believed after it has ended")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.SetRevocation(ctx, cmg.RevocationMode(args[0]), grace)
	})
}

func trustRefreshCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "refresh", Short: "Fetch all lists of revoked certificates now", Args: takes(),
		Long: "Has the management point fetch every list at once, as after a certificate was\nrevoked. Gateways know a few seconds later; cmg trust list shows how it went."}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		return db.RefreshRevocation(ctx)
	})
}
