package ccm

import (
	"crypto"
	"crypto/rsa"
	"fmt"

	"github.com/opencmg/cmg"
)

// statement is what the site signs of an assignment: the element as XML
// writes it, without the signature, in UTF-16LE with byte order mark. Where
// the field carries its signature is not public: the attributes are ours.
func (a Assignment) statement() []byte { return EncodeUTF16(a.element().String(), true) }

// Sign signs the assignment with the site's key, which has to be RSA. Policy,
// version, flags, digest and place of the body are covered; for whom it is
// and until when is not: that a policy applies to a device the management
// point says.
func (a *Assignment) Sign(key crypto.Signer) (err error) {
	if a.Signature, err = signWith(key, a.statement()); err != nil {
		return fmt.Errorf("sign assignment of %s: %w", a.PolicyID, err)
	}
	return nil
}

// Verify checks the signature by the site's key. It wraps
// cmg.ErrUnauthenticated where it does not hold or is not there.
func (a Assignment) Verify(site *rsa.PublicKey) error {
	if a.Signature == "" {
		return fmt.Errorf("assignment of %.60s: the site has not signed it: %w", a.PolicyID, cmg.ErrUnauthenticated)
	}
	if err := Verify(site, a.statement(), a.Signature); err != nil {
		return fmt.Errorf("assignment of %.60s: %w", a.PolicyID, err)
	}
	return nil
}

// SiteSigningCertificate writes the answer to GET
// /SMS_MP/.sms_aut?SITESIGNCERT, as UTF-8. The name of its element is ours.
func SiteSigningCertificate(der []byte) string { return hexElement("SiteSigningCertificate", der) }

// MPCertificate writes the answer to MPCERT in the same form.
func MPCertificate(der []byte) string { return hexElement("MPCertificate", der) }

// ReadSiteSigningCertificate reads what SiteSigningCertificate writes.
func ReadSiteSigningCertificate(text string) (der []byte, err error) {
	root, err := parseRoot(text, "SiteSigningCertificate")
	if err == nil {
		der, err = hexValue(root)
	}
	if err == nil {
		_, err = SigningKey(der)
	}
	if err != nil {
		return nil, fmt.Errorf("read site signing certificate: %w", err)
	}
	return der, nil
}
