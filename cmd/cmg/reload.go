package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

func reloadCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "reload URL", Short: "Have a running role take its configuration anew", Args: takes("URL"),
		Long: `Has a running role read its configuration file, and the files this names, anew.
URL is the role's status listener; http:// may be left out. Connections stay.
A configuration that is wrong is not taken: the command says why, and the role
goes on with the one it has. On Unix SIGHUP does the same.`,
		Example: "  cmg reload 127.0.0.1:18051",
		RunE: func(cmd *cobra.Command, args []string) error {
			row, err := askReload(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if row.State != "ok" {
				return fmt.Errorf("the configuration was not taken, the role goes on with the one before: %s: %w", row.State, cmg.ErrInvalid)
			}
			fmt.Fprintf(a.stdout, "taken; changed: %s\n", orNone(row.Changed))
			if len(row.Restart) > 0 {
				fmt.Fprintf(a.stdout, "these count after a restart: %s\n", strings.Join(row.Restart, ", "))
			}
			return nil
		}}
}

// A reloadRow is what a role says of its configuration.
type reloadRow struct {
	State   string   `json:"state"`
	Changed []string `json:"changed"`
	Restart []string `json:"needs_restart"`
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "no key"
	}
	return strings.Join(names, ", ")
}

// askReload asks a role by its status listener.
func askReload(ctx context.Context, address string) (row reloadRow, err error) {
	url := address
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/reload", nil)
	if err != nil {
		return row, usage("reload: %w", err)
	}
	req.Header.Set(web.ReloadHeader, "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return row, fmt.Errorf("ask %s: %w: %w", address, err, cmg.ErrUnavailable)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return row, fmt.Errorf("ask %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
		return row, fmt.Errorf("ask %s: %s: %w", address, resp.Status, cmg.ErrNotFound)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&row); err != nil {
		return row, fmt.Errorf("ask %s: not a role's answer: %w", address, cmg.ErrInvalid)
	}
	return row, nil
}
