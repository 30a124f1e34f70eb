package content

import (
	"context"

	"github.com/opencmg/cmg"
)

// Manifest gives the list of files that g grants, from memory or from the
// store, held against the digest in g. It refuses with the codes of a Locator.
// The caller must not change it.
func (l *Locator) Manifest(ctx context.Context, g cmg.PackageGrant) (cmg.Manifest, error) {
	return l.manifest(ctx, g)
}
