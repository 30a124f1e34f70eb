package auth

import (
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

const (
	publicationType = "cmg-publication+jws"
	maxPublication  = 4 << 20 // bytes, signed: hundreds of anchors and thousands of routes
)

// SignPublication makes the compact JWS (RS256) of p with the site's signing
// identity, whose certificate goes along (x5c, RFC 7515 section 4.1.6).
func SignPublication(id *Identity, p cmg.Publication) (string, error) {
	if err := p.Check(); err != nil {
		return "", fmt.Errorf("sign publication: %w", err)
	}
	if n := id.Name(); n.Role != cmg.RoleSite || n.Site != p.Site {
		return "", fmt.Errorf("sign publication of site %s as %s: %w", p.Site, n, cmg.ErrForbidden)
	}
	text, err := SignStatement(id, publicationType, p)
	if err != nil {
		return "", err
	}
	if len(text) > maxPublication {
		return "", fmt.Errorf("sign publication: %d bytes, at most %d: %w", len(text), maxPublication, cmg.ErrTooLarge)
	}
	return text, nil
}

// ReadPublication gives the publication, if the site that id belongs to has
// signed it: by a certificate of role site, under id's roots, valid at that
// time. A publication somebody else signed is cmg.ErrUnauthenticated or
// cmg.ErrForbidden, one that cannot be read cmg.ErrInvalid.
func ReadPublication(id *Identity, jws string, at time.Time) (p cmg.Publication, err error) {
	if err := readStatement(id, publicationType, jws, at, maxPublication, &p); err != nil {
		return cmg.Publication{}, err
	}
	if p.Site != id.name.Site {
		return cmg.Publication{}, fmt.Errorf("read publication: it is of site %.20q: %w", p.Site, cmg.ErrForbidden)
	}
	if err := p.Check(); err != nil {
		return cmg.Publication{}, fmt.Errorf("read publication: %w", err)
	}
	return p, nil
}
