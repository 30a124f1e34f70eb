package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// codeUnreachable is a connection point's word for a server that it cannot
// connect to.
const codeUnreachable = "CMGConnector_Unreachable"

// unreachable says that a server of the user's cannot be reached, and why, as
// far as an attempt from here tells: connection points of a lab run here too.
func unreachable(ctx context.Context, server string) error {
	why := connectTo(ctx, server)
	if why == nil {
		why = errors.New("from here it can be; the connection points' logs say more")
	}
	return fmt.Errorf("your server at %s cannot be reached by the connection points: %w", server, why)
}

// connectTo gives the error of connecting as far as a request could be sent.
func connectTo(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	address := net.JoinHostPort(u.Hostname(), port)
	var c net.Conn
	if u.Scheme == "https" {
		c, err = new(tls.Dialer).DialContext(ctx, "tcp", address)
	} else {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return err
	}
	return c.Close()
}
