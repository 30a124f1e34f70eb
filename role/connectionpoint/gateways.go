package connectionpoint

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// A Gateway says how one or more instances are reached: by TCP and HTTPS
// addresses of one instance, or by the name of a service that has several.
// In a file its short form is "host:port", which is TCP only.
type Gateway struct {
	Name  string `json:"name"`  // of the instance that has to be there; empty: whichever is
	TCP   string `json:"tcp"`   // host:port of its channel listener; tried first
	HTTPS string `json:"https"` // host:port of its HTTPS listener

	Service   string `json:"service"`   // in place of those: host of the service; host:port in one-port mode
	Instances int    `json:"instances"` // of the service; 0: 1
	Mode      string `json:"mode"`      // of the service: one-port, multi-port or tcp; empty: one-port
}

// Plain makes gateways of addresses host:port of channel listeners.
func Plain(addresses ...string) (gs []Gateway) {
	for _, a := range addresses {
		gs = append(gs, Gateway{TCP: a})
	}
	return gs
}

// UnmarshalText reads the short form.
func (g *Gateway) UnmarshalText(text []byte) error {
	if err := checkAddress(string(text)); err != nil {
		return err
	}
	*g = Gateway{TCP: string(text)}
	return nil
}

// MarshalText writes the short form; what has more to it has none.
func (g Gateway) MarshalText() ([]byte, error) {
	if g != (Gateway{TCP: g.TCP}) {
		return nil, fmt.Errorf("gateway %s has no short form: %w", g.label(), cmg.ErrInvalid)
	}
	return []byte(g.TCP), nil
}

func (g Gateway) String() string { return g.label() }

func (g Gateway) label() string {
	for _, s := range []string{g.Service, g.Name, g.TCP, g.HTTPS} {
		if s != "" {
			return s
		}
	}
	return "(empty)"
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%.200q is not host:port: %w", a, cmg.ErrInvalid)
	}
	return nil
}

// The modes of a service, and the ports of each.
const (
	modeOnePort   = "one-port"   // everything over 443, whatever the number of instances
	modeMultiPort = "multi-port" // as the field: 10140+i, else 443 or 10124+i
	modeTCP       = "tcp"        // 10140+i only

	portHTTPS      = 443
	portTCPFirst   = 10140
	portHTTPSFirst = 10124
	maxFieldPorts  = 16  // what both ranges have room for
	maxInstances   = 256 // of a service on one port
)

// places lists what channels are to be held to.
func (g Gateway) places() ([]*place, error) {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("gateway %s: %w: %w", g.label(), fmt.Errorf(format, a...), cmg.ErrInvalid)
	}
	if g.Service != "" {
		return g.servicePlaces(bad)
	}
	if g.Instances != 0 || g.Mode != "" {
		return nil, bad("instances and mode are for a service")
	}
	pl := &place{label: g.label(), name: g.Name, want: 1}
	for _, w := range []*way{{transport: transportTCP, addr: g.TCP}, {transport: transportHTTPS, addr: g.HTTPS, proxied: true}} {
		if w.addr == "" {
			continue
		}
		if err := checkAddress(w.addr); err != nil {
			return nil, fmt.Errorf("gateway %s: %w", g.label(), err)
		}
		pl.ways = append(pl.ways, w)
	}
	if len(pl.ways) == 0 {
		return nil, bad("tcp, https or service has to be set")
	}
	return []*place{pl}, nil
}

// Addresses are where channels to one instance, or to any of several, are
// dialed, in their order.
type Addresses struct {
	Instances int      `json:"instances"` // that share them
	Ways      []string `json:"ways"`      // transport to host:port
}

// Addresses lists where g's channels are dialed.
func (g Gateway) Addresses() ([]Addresses, error) {
	places, err := g.places()
	if err != nil {
		return nil, err
	}
	all := make([]Addresses, len(places))
	for i, pl := range places {
		all[i].Instances = pl.want
		for _, w := range pl.ways {
			all[i].Ways = append(all[i].Ways, w.String())
		}
	}
	return all, nil
}

func (g Gateway) servicePlaces(bad func(string, ...any) error) ([]*place, error) {
	n, mode := max(g.Instances, 1), g.Mode
	if mode == "" {
		mode = modeOnePort
	}
	host, port := g.Service, ""
	if h, p, err := net.SplitHostPort(g.Service); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	at := func(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	switch {
	case g.TCP != "" || g.HTTPS != "" || g.Name != "":
		return nil, bad("a service is named beside tcp, https or name: one or the other")
	case host == "" || g.Instances < 0:
		return nil, bad("service is not a host, or instances is negative")
	case mode == modeOnePort && n > maxInstances:
		return nil, bad("%d instances, at most %d", n, maxInstances)
	case mode == modeOnePort:
		addr := at(portHTTPS)
		if port != "" {
			addr = g.Service
		}
		return []*place{{label: addr, want: n, ways: []*way{
			{transport: transportTCP, addr: addr, proxied: true}, {transport: transportHTTPS, addr: addr, proxied: true}}}}, nil
	case mode != modeMultiPort && mode != modeTCP:
		return nil, bad("mode %q is not %s, %s or %s", mode, modeOnePort, modeMultiPort, modeTCP)
	case port != "":
		return nil, bad("mode %s has ports of its own: service is a host without one", mode)
	case n > maxFieldPorts:
		return nil, bad("%d instances: mode %s has %d ports, 10140 to 10155 and 10124 to 10139; mode one-port takes more", n, mode, maxFieldPorts)
	}
	var all []*place
	for i := range n {
		pl := &place{label: at(portTCPFirst + i), want: 1, ways: []*way{{transport: transportTCP, addr: at(portTCPFirst + i)}}}
		if mode == modeMultiPort {
			https := portHTTPSFirst + i
			if n == 1 {
				https = portHTTPS
			}
			pl.ways = append(pl.ways, &way{transport: transportHTTPS, addr: at(https), proxied: true})
		}
		all = append(all, pl)
	}
	return all, nil
}
