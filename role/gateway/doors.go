package gateway

import (
	"context"
	"fmt"
	"net"
)

// doors are the listeners of an instance, besides the status page's.
type doors struct {
	front   []net.Listener // clients, and connection points by HTTPS; the first is the clients'
	channel net.Listener   // connection points by TCP; nil: none
}

// noDoor as an address says that there is to be no listener.
const noDoor = "none"

// open listens on all addresses, or on none.
func (g *Gateway) open(ctx context.Context) (d *doors, err error) {
	d = &doors{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if g.cfg.Channel != noDoor {
		if d.channel, err = g.cfg.Sockets.Listen(ctx, "channel", g.cfg.Channel, nil); err != nil {
			return nil, fmt.Errorf("gateway: listen for connection points: %w", err)
		}
	}
	front, err := g.cfg.Sockets.Listen(ctx, "clients", g.cfg.Listen, func(ctx context.Context, addr string) (net.Listener, error) {
		return listen(ctx, addr, g.cfg.ReusePort)
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: listen for clients: %w", err)
	}
	d.front = append(d.front, front)
	if g.cfg.ChannelHTTPS != "" {
		own, err := g.cfg.Sockets.Listen(ctx, "channel-https", g.cfg.ChannelHTTPS, nil)
		if err != nil {
			return nil, fmt.Errorf("gateway: listen for connection points by HTTPS: %w", err)
		}
		d.front = append(d.front, own)
	}
	return d, nil
}

func (d *doors) channelAddr() string {
	if d.channel == nil {
		return noDoor
	}
	return d.channel.Addr().String()
}

func (d *doors) closeFront() {
	for _, ln := range d.front {
		ln.Close()
	}
}

func (d *doors) close() {
	d.closeFront()
	d.closeChannel()
}

func (d *doors) closeChannel() {
	if d.channel != nil {
		d.channel.Close()
	}
}
