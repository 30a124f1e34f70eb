package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// maxStatus bounds a role's status document.
const maxStatus = 16 << 20

func statusCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "status URL", Short: "Show what a role's status listener says", Args: takes("URL"),
		Long:    "Shows the status of a running role: its checks, counters and build, as JSON.\nURL is the role's status listener; http:// and /status may be left out.",
		Example: "  cmg status 127.0.0.1:18051",
		RunE: func(cmd *cobra.Command, args []string) error {
			var v map[string]any
			if err := getStatus(cmd.Context(), args[0], &v); err != nil {
				return err
			}
			return writeJSON(a.stdout, v)
		}}
}

// getStatus reads the /status of a role into v, within five seconds. A role
// that cannot be reached is cmg.ErrUnavailable.
func getStatus(ctx context.Context, address string, v any) error {
	body, err := getLocal(ctx, address, "/status")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("status of %s: not a role's status: %w", address, err)
	}
	return nil
}

func getLocal(ctx context.Context, address, path string) ([]byte, error) {
	url := address
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	url = strings.TrimSuffix(strings.TrimSuffix(url, "/"), "/status") + path
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, usage("status: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) {
			err = dial
		}
		return nil, fmt.Errorf("ask %s: %w: %w", address, err, cmg.ErrUnavailable)
	}
	defer resp.Body.Close()
	if err := web.ReadAnswer(resp); err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	return body, nil
}
