package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
	"github.com/opencmg/cmg/web"
)

// settleTime is how much later than an inner hop an outer one may report.
const settleTime = 1500 * time.Millisecond

// hopOrder is the way of a request.
var hopOrder = []cmg.RoleKind{cmg.RoleGateway, cmg.RoleConnectionPoint, cmg.RoleManagementPoint, cmg.RoleContentStore}

func explainCommand(a *app) *cobra.Command {
	var ask []string
	var wait time.Duration
	var asJSON bool
	c := &cobra.Command{Use: "explain ID", Short: "Say why a request was refused", Args: takes("ID"),
		Long: `Says of a request that was refused: at which hop, by which rule, what it had
shown (certificates, claims, issuer, times), and what to do about it. ID is the
request's, from the header CMG-Request-Id, the answer's body or a log. ID may
also be a code such as CMGService_Not_Published.

Gateways report what they refuse inward within about two seconds, and the site
keeps the last 20,000 refusals. A gateway without a channel, or one that refuses
faster than it can report, still has its own last 4,096: ask its status listener
with --ask.`,
		Example: "  cmg explain c5ecnccu-5\n  cmg explain c5ecnccu-5 --ask 127.0.0.1:9443\n  cmg explain CMGService_Certificate_Expired"}
	c.Flags().StringSliceVar(&ask, "ask", nil, "status listener of a role to ask as well, host:port; may be repeated")
	c.Flags().DurationVar(&wait, "wait", 3*time.Second, "how long to wait for a report that is under way")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		if rule, ok := cmg.RuleOf(args[0]); ok {
			fmt.Fprintf(a.stdout, "%s\n  rule    %s\n  remedy  %s\n", args[0], rule.Means, rule.Remedy)
			return nil
		}
		found, err := findRefusals(ctx, db, args[0], ask, wait)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, explained(found))
		}
		for i, r := range found {
			if i > 0 {
				fmt.Fprintln(a.stdout)
			}
			printRefusal(a.stdout, r)
		}
		return nil
	})
}

// findRefusals asks the site, and whoever else is named, until somebody knows
// the request or the time is over.
func findRefusals(ctx context.Context, db *site.Site, id string, ask []string, wait time.Duration) ([]cmg.RefusalRecord, error) {
	until := time.NewTimer(wait)
	defer until.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	var settled <-chan time.Time // those who come late are waited for a little
	for over := false; ; {
		found, err := db.Refusal(ctx, id)
		if err != nil && !errors.Is(err, cmg.ErrNotFound) {
			return nil, err
		}
		var failed []error
		for _, address := range ask {
			more, err := askRefusals(ctx, address, id)
			failed = append(failed, err)
			found = append(found, more...)
		}
		found = inOrder(found)
		switch {
		case len(found) > 0 && (over || strings.HasPrefix(found[0].Hop, string(cmg.RoleGateway)+"/")):
			return found, nil
		case len(found) > 0 && settled == nil:
			settled = time.After(settleTime)
		case over:
			return nil, fmt.Errorf("nobody who was asked refused a request with the id %.80q: %w", id, errors.Join(append(failed, cmg.ErrNotFound)...))
		}
		select {
		case <-look.C:
		case <-until.C:
			over = true
		case <-settled:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func askRefusals(ctx context.Context, address, id string) (rs []cmg.RefusalRecord, err error) {
	body, err := getLocal(ctx, address, web.RefusalsPath+"?id="+url.QueryEscape(id))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &rs); err != nil {
		return nil, fmt.Errorf("refusals of %s: not a role's: %w", address, err)
	}
	return rs, nil
}

// inOrder sorts records along the request's way, and leaves out what two have
// told.
func inOrder(rs []cmg.RefusalRecord) []cmg.RefusalRecord {
	place := func(r cmg.RefusalRecord) int {
		role, _, _ := strings.Cut(r.Hop, "/")
		return slices.Index(hopOrder, cmg.RoleKind(role))
	}
	slices.SortStableFunc(rs, func(a, b cmg.RefusalRecord) int { return place(a) - place(b) })
	return slices.CompactFunc(rs, func(a, b cmg.RefusalRecord) bool { return a.Hop == b.Hop && a.Code == b.Code })
}

// An explanation is a record with what the documentation says of its code.
type explanation struct {
	cmg.RefusalRecord
	Rule   string `json:"rule"`
	Remedy string `json:"remedy"`
}

func explained(rs []cmg.RefusalRecord) (es []explanation) {
	for _, r := range rs {
		e := explanation{RefusalRecord: r}
		e.Rule, e.Remedy = ruleOf(r)
		es = append(es, e)
	}
	return es
}

func ruleOf(r cmg.RefusalRecord) (rule, remedy string) {
	if known, ok := cmg.RuleOf(r.Code); ok {
		return known.Means, known.Remedy
	}
	if strings.HasPrefix(r.Code, "CMGConnector_") {
		return "the server behind the path refused, in its own words", "look at the server; if it is a management point, its own refusal stands below"
	}
	return "a fault", "the log of " + r.Hop + " has the cause; tell us"
}

func printRefusal(w io.Writer, r cmg.RefusalRecord) {
	rule, remedy := ruleOf(r)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-9s %s\n", name, text)
		}
	}
	fmt.Fprintf(w, "%s refused request %s\n", r.Hop, r.ID)
	line("code", fmt.Sprintf("%d %s", r.Status, r.Code))
	line("when", r.Time.UTC().Format(time.RFC3339))
	line("rule", rule)
	line("told", r.Why)
	line("cause", r.Cause)
	for _, f := range r.Facts {
		line("evidence", f.Name+": "+f.Value)
	}
	line("remedy", remedy)
}
