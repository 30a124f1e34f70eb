//go:build unix && !linux

package gateway

import "net"

// inherit has nothing to set: see the other one.
func inherit(*net.ListenConfig) func(fd int) error {
	return func(int) error { return nil }
}
