package agent

import (
	"context"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// maxSiteAnswer bounds the answer that holds the site's signing certificate.
const maxSiteAnswer = 64 << 10

// verifySite checks that the site has signed every assignment. One that it
// has not makes the whole answer worthless: nothing is obeyed, and nothing is
// forgotten that was assigned before.
func (a *Agent) verifySite(ctx context.Context, all []ccm.Assignment) error {
	if len(all) == 0 {
		return nil
	}
	key, err := a.siteKey(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := p.Verify(key); err != nil {
			return err
		}
	}
	return nil
}

// siteKey gives the key that the site signs with: that of the configured
// certificate, or of the one the site showed first. That one stays: nobody who
// comes between later puts another in its place.
func (a *Agent) siteKey(ctx context.Context) (*rsa.PublicKey, error) {
	if a.cfg.SiteCertificate != "" {
		return siteKeyFile(a.cfg.SiteCertificate)
	}
	if len(a.state.Site) == 0 {
		b, err := a.get(ctx, "/SMS_MP/.sms_aut?SITESIGNCERT", nil, maxSiteAnswer)
		if err != nil {
			return nil, err
		}
		der, err := ccm.ReadSiteSigningCertificate(string(b))
		if err != nil {
			return nil, err
		}
		a.state.Site = der
		if err := a.save(); err != nil {
			return nil, err
		}
		a.cfg.Log.Info("site signing certificate kept: what another signs is not obeyed")
	}
	key, err := ccm.SigningKey(a.state.Site)
	if err != nil {
		return nil, fmt.Errorf("site in the state: %w", err)
	}
	return key, nil
}

func siteKeyFile(name string) (*rsa.PublicKey, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read site_certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("read site_certificate %s: no certificate in PEM: %w", name, cmg.ErrInvalid)
	}
	key, err := ccm.SigningKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read site_certificate %s: %w", name, err)
	}
	return key, nil
}
