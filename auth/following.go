package auth

import "crypto/tls"

// Following makes the settings of an HTTPS server that are, for each new
// connection, what current gives then: a renewed certificate is shown without
// a restart.
func Following(current func() *tls.Config) *tls.Config {
	c := floor()
	c.NextProtos = webProtocols
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current(), nil }
	return c
}
