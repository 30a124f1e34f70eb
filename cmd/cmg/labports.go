package main

import (
	"fmt"
	"net"
	"strconv"

	"github.com/opencmg/cmg"
)

// labPorts are the ports of a lab; see the help of cmg lab. But for the
// field's own ones all lie within a hundred from the base.
type labPorts struct {
	client     int    // shared by both gateways
	channel    [2]int // of gateway-1, gateway-2
	management int
	store      int
	status     map[string]int // by process
}

func newLabPorts(base int, real bool) (labPorts, error) {
	if base < 1024 || base > 65536-100 {
		return labPorts{}, usage("--port-base %d is not between 1024 and %d", base, 65536-100)
	}
	p := labPorts{
		client: base + 43, channel: [2]int{base + 40, base + 41}, management: base + 44, store: base + 45,
		status: map[string]int{
			"gateway-1": base + 51, "gateway-2": base + 52, "connection-point-1": base + 61, "connection-point-2": base + 62,
			"management-point-1": base + 71, "content-store-1": base + 81, "agent-1": base + 91, "agent-2": base + 92, "agent-3": base + 93,
		},
	}
	if real {
		p.client, p.channel = 443, [2]int{10140, 10141}
	}
	return p, nil
}

// all lists every port.
func (p labPorts) all() []int {
	all := []int{p.client, p.channel[0], p.channel[1], p.management, p.store}
	for _, n := range p.status {
		all = append(all, n)
	}
	return all
}

// free says which port is in use already.
func (p labPorts) free() error {
	for _, n := range p.all() {
		ln, err := net.Listen("tcp", local(n))
		if err != nil {
			return fmt.Errorf("port %d cannot be used: %w: %w\nanother lab? --port-base moves every port", n, err, cmg.ErrConflict)
		}
		ln.Close()
	}
	return nil
}

// local is a port of this machine.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
