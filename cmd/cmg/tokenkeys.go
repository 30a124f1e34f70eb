package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

func tokenRollCommand(a *app) *cobra.Command {
	var after time.Duration
	c := &cobra.Command{Use: "roll-keys", Short: "Sign tokens with a new key from now on", Args: takes(),
		Long: `Makes a new key for the site's tokens and publishes it. It begins to sign after
--after, when every gateway knows it; management points take it over without a
restart. Tokens of older keys keep their value: a key goes on to verify until
the last token it signed has ended, and is taken out by a roll after that.`}
	c.Flags().DurationVar(&after, "after", time.Minute, "when the new key begins to sign")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, _ []string) error {
		if after < 0 || after > 24*time.Hour {
			return usage("--after %s is not between 0s and 24h", after)
		}
		ring, err := auth.LoadKeyring(s.tokenKeys())
		if err != nil {
			return err
		}
		now := db.Clock()
		rolled, dropped, err := ring.Roll(now, now.Add(after))
		if err != nil {
			return err
		}
		// Gateways first: what signs has to be known already.
		if err := db.AddTokenKeys(ctx, rolled.PublicKeys()); err != nil {
			return err
		}
		if err := rolled.Replace(s.tokenKeys()); err != nil {
			return err
		}
		var errs []error
		for _, kid := range dropped {
			errs = append(errs, db.RemoveTokenKey(ctx, kid))
		}
		fmt.Fprintf(a.stdout, "key %s signs from %s; %d keys verify, %d were taken out\n",
			rolled.SignerID(now.Add(after)), stamp(now.Add(after)), len(rolled.PublicKeys()), len(dropped))
		return errors.Join(errs...)
	})
}
