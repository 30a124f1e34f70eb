package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/site"
)

func contentCommand(a *app) *cobra.Command {
	return group("content", "Make packages, list them, serve them", "A package is a folder whose files devices may download, each checked by its SHA-256.",
		contentAddCommand(a), contentListCommand(a), contentServeCommand(a))
}

func contentAddCommand(a *app) *cobra.Command {
	var name, id, store string
	var quiet bool
	c := &cobra.Command{Use: "add DIR", Short: "Make a package of a folder, print its id", Args: takes("DIR"),
		Example: "  cmg content add ./tools --name Tools"}
	c.Flags().StringVar(&name, "name", "", "name for people (default: the folder's)")
	c.Flags().StringVar(&id, "package", "", "make a new version of this package")
	c.Flags().StringVar(&store, "store", "", "folder of the content store (default: content in the site's folder)")
	c.Flags().BoolVar(&quiet, "quiet", false, "no progress")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, args []string) error {
		if name == "" {
			abs, err := filepath.Abs(args[0])
			if err != nil {
				return usage("%w", err)
			}
			name = filepath.Base(abs)
		}
		if store == "" {
			store = s.contentDir()
		}
		var tell func(content.Progress)
		if !quiet && isTerminal(a.stderr) {
			tell = a.progress()
		}
		p, err := addContent(ctx, db, store, args[0], cmg.PackageID(id), name, tell)
		if tell != nil {
			fmt.Fprintln(a.stderr)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, p.ID)
		return nil
	})
}

// addContent stores dir as a new package, or as the next version of the one
// that id names.
func addContent(ctx context.Context, db *site.Site, store, dir string, id cmg.PackageID, name string, tell func(content.Progress)) (p site.Package, err error) {
	version := 1
	if id == "" {
		if id, err = db.NextPackageID(ctx); err != nil {
			return p, err
		}
	} else {
		if id, err = cmg.ParsePackageID(string(id)); err != nil {
			return p, err
		}
		old, err := db.Package(ctx, id, 0)
		if err != nil {
			return p, err
		}
		version = old.Version + 1
	}
	disk, err := blob.NewDisk(blob.DiskConfig{Dir: store})
	if err != nil {
		return p, err
	}
	m, digest, err := content.Add(ctx, disk, dir, content.AddOptions{Package: id, Version: version, Name: name, Progress: tell})
	if err = errors.Join(err, disk.Close()); err != nil {
		return p, err
	}
	if err := db.AddPackage(ctx, m, digest); err != nil {
		return p, err
	}
	return db.Package(ctx, id, version)
}

// progress tells on one line of the terminal how far a long work has got.
func (a *app) progress() func(content.Progress) {
	began := time.Now()
	return func(p content.Progress) {
		left := ""
		if rate := float64(p.Bytes) / time.Since(began).Seconds(); rate > 0 && p.OfBytes > p.Bytes {
			left = fmt.Sprintf(", %s left", (time.Duration(float64(p.OfBytes-p.Bytes)/rate) * time.Second).Round(time.Second))
		}
		fmt.Fprintf(a.stderr, "\r\x1b[K%d of %d files, %s of %s%s", p.Files, p.OfFiles, size(p.Bytes), size(p.OfBytes), left)
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func contentListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List packages", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		packages, err := db.Packages(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, packages)
		}
		return a.table("PACKAGE\tVERSION\tNAME\tFILES\tSIZE\tADDED", func(w *tabwriter.Writer) {
			for _, p := range packages {
				fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\n", p.ID, p.Version, p.Name, p.Files, size(p.Size), stamp(p.Added))
			}
		})
	})
}
