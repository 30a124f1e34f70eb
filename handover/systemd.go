package handover

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// Notify tells systemd how the process stands (sd_notify): "READY=1",
// "STOPPING=1", "MAINPID=…". Where nobody has asked to be told it does
// nothing.
func Notify(states ...string) error {
	where := os.Getenv("NOTIFY_SOCKET")
	if where == "" {
		return nil
	}
	if strings.HasPrefix(where, "@") { // abstract, as Linux has them
		where = "\x00" + where[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: where, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
