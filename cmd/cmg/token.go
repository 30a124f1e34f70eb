package main

import (
	"context"
	"fmt"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

const (
	registrationLife    = 4320 * time.Minute  // the field's default
	maxRegistrationLife = 10080 * time.Minute // and its limit
	sessionLife         = 8 * time.Hour
)

func tokenCommand(a *app) *cobra.Command {
	return group("token", "Make, list and block tokens", "Tokens let devices without a certificate in. A token's text is shown once and stored nowhere.",
		tokenNewCommand(a), tokenSessionCommand(a), tokenListCommand(a), tokenShowCommand(a), tokenRollCommand(a),
		blockCommand(a, site.BlockToken, "ID", "Block a token by its id",
			"Every gateway refuses it within seconds. Of a registration token, devices that\nregistered with it stay; of a device token, sessions that it opened last until\nthey end: to shut a device out, block the device."),
		unblockCommand(a, site.BlockToken, "ID", "Let a blocked token be used again"))
}

func tokenNewCommand(a *app) *cobra.Command {
	var life time.Duration
	var uses int
	var note string
	var from []string
	c := &cobra.Command{Use: "new", Short: "Make a registration token, print it", Args: takes()}
	c.Flags().StringSliceVar(&from, "from", nil, "CIDR: register only from there, as the gateway sees it; may be repeated")
	c.Flags().DurationVar(&life, "lifetime", registrationLife, "how long it lets devices register, at most 10080m")
	c.Flags().IntVar(&uses, "max-uses", 0, "how many devices it may register; 0: any number")
	c.Flags().StringVar(&note, "note", "", "for whom it is; shown in lists and logs")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, _ []string) error {
		if life <= 0 || life > maxRegistrationLife {
			return usage("--lifetime %s is not between 1s and 10080m", life)
		}
		if uses < 0 {
			return usage("--max-uses %d is negative", uses)
		}
		for _, f := range from {
			if _, err := netip.ParsePrefix(f); err != nil {
				return usage("--from %.60q is not a CIDR such as 192.0.2.0/24", f)
			}
		}
		token, err := s.newToken(ctx, db, auth.Claims{Kind: auth.TokenRegistration, Note: note}, life, uses, from...)
		if err == nil {
			fmt.Fprintf(a.stderr, "registers %s, until %s\n", devicesOf(uses), stamp(db.Clock().Add(life)))
			fmt.Fprintln(a.stdout, token)
		}
		return err
	})
}

// devicesOf says how many devices a token registers.
func devicesOf(uses int) string {
	switch uses {
	case 0:
		return "any number of devices (--max-uses sets a limit)"
	case 1:
		return "one device"
	}
	return fmt.Sprintf("%d devices", uses)
}

func tokenSessionCommand(a *app) *cobra.Command {
	var life time.Duration
	c := &cobra.Command{Use: "session DEVICE", Short: "Make a session token for a registered device, print it", Args: takes("DEVICE"),
		Long: "Makes what the device itself gets from the token service: whoever holds the\ntoken speaks for the device until it expires. For trying things by hand."}
	c.Flags().DurationVar(&life, "lifetime", sessionLife, "how long it is valid, at most 8h")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, args []string) error {
		if life <= 0 || life > sessionLife {
			return usage("--lifetime %s is not between 1s and 8h", life)
		}
		id, err := cmg.ParseDeviceID(args[0])
		if err != nil {
			return err
		}
		if _, err := db.Device(ctx, id); err != nil {
			return err
		}
		token, err := s.newToken(ctx, db, auth.Claims{Kind: auth.TokenSession, Device: id}, life, 0)
		if err == nil {
			fmt.Fprintln(a.stdout, token)
		}
		return err
	})
}

// newToken signs a token, records its id and gives its text.
func (s siteFolder) newToken(ctx context.Context, db *site.Site, c auth.Claims, life time.Duration, uses int, from ...string) (string, error) {
	ring, err := auth.LoadKeyring(s.tokenKeys())
	if err != nil {
		return "", err
	}
	st, err := db.Settings(ctx)
	if err != nil {
		return "", err
	}
	c.ID, c.Site, c.Hierarchy = cmg.NewGUID(), st.Code, st.HierarchyID
	c.NotBefore = db.Clock().Truncate(time.Second)
	c.Expires = c.NotBefore.Add(life)
	token, err := ring.Issue(c)
	if err != nil {
		return "", err
	}
	return token, db.RecordToken(ctx, site.Token{
		ID: c.ID, Kind: string(c.Kind), Device: c.Device, Note: c.Note, NotBefore: c.NotBefore, Expires: c.Expires, MaxUses: uses, Sources: from,
	})
}

func tokenListCommand(a *app) *cobra.Command {
	var kind string
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the newest tokens of a kind", Args: takes()}
	c.Flags().StringVar(&kind, "kind", string(auth.TokenRegistration), "registration, device, session or content")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		switch auth.TokenKind(kind) {
		case auth.TokenRegistration, auth.TokenDevice, auth.TokenSession, auth.TokenContent:
		default:
			return usage("--kind %q is not registration, device, session or content", kind)
		}
		tokens, err := db.Tokens(ctx, kind, 1000)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, tokens)
		}
		return a.table("ID\tSTATE\tEXPIRES\tUSES\tDEVICE\tNOTE", func(w *tabwriter.Writer) {
			for _, t := range tokens {
				uses := fmt.Sprint(t.Uses)
				if t.MaxUses > 0 {
					uses += fmt.Sprintf(" of %d", t.MaxUses)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, tokenState(t, db.Clock()), stamp(t.Expires), uses, t.Device, t.Note)
			}
		})
	})
}

func tokenState(t site.Token, at time.Time) string {
	switch {
	case t.Blocked:
		return "blocked"
	case !at.Before(t.Expires):
		return "expired"
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		return "spent"
	}
	return "valid"
}

func tokenShowCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "show ID", Short: "Show what is known of a token, as JSON", Args: takes("ID")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		t, err := db.Token(ctx, args[0])
		if err != nil {
			return err
		}
		return writeJSON(a.stdout, struct {
			site.Token
			State string `json:"state"`
		}{t, tokenState(t, db.Clock())})
	})
}

// table prints aligned columns.
func (a *app) table(head string, rows func(w *tabwriter.Writer)) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(w)
	return w.Flush()
}

// stamp writes a time for people; nothing where there is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
