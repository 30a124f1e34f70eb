package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
)

func versionCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Say which build this is", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			b := cmg.BuildInfo()
			if asJSON {
				return writeJSON(a.stdout, b)
			}
			_, err := io.WriteString(a.stdout, versionText(b))
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func versionText(b cmg.Build) string {
	text := fmt.Sprintf("cmg %s (%s, %s)\n", b.Version, b.Go, b.Platform)
	if b.Revision != "" {
		text += fmt.Sprintf("revision %s of %s\n", b.Revision, b.Time)
	}
	return text
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
