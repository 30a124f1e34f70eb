package connectionpoint

import (
	"net/http"

	"github.com/opencmg/cmg/auth"
)

// A siteClient asks the site with the identity in force. It speaks HTTP/1.1,
// of which a request that takes too long closes its connection: the next one
// does not go down the same dead one.
type siteClient struct {
	p    *Point
	by   *auth.Identity
	http *http.Client
}

func newSiteClient(p *Point) *siteClient { return &siteClient{p: p} }

// now gives the client, which is another one after the identity changed.
func (c *siteClient) now() *http.Client {
	if id := c.p.live.Load().identity; id != c.by {
		c.close()
		c.by, c.http = id, &http.Client{Timeout: mapTime, Transport: &http.Transport{TLSClientConfig: id.Client()}}
	}
	return c.http
}

func (c *siteClient) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}
