package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// IssuerID names an authority by its subject and public key: hex of a SHA-256.
// Its cross-signed certificates have one id.
func IssuerID(c *x509.Certificate) string {
	h := sha256.New()
	h.Write(c.RawSubject)
	h.Write(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h.Sum(nil))
}

// A CRL is a list of revoked certificates whose signature was checked.
type CRL struct {
	This, Next time.Time
	Scope      string   // "users" or "authorities" if it holds only those, else empty
	Points     []string // the distribution points it speaks for; empty: all of its authority's certificates
	Revoked    *RevokedList
}

// MaxCRL bounds a CRL as it is fetched, in bytes: about 400,000 entries, which
// take as many kilobytes of memory while they are read.
const MaxCRL = 16 << 20

// clockSkew is how far ahead of ours the clock of an authority may be.
const clockSkew = 5 * time.Minute

var (
	oidDelta             = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidCRLNumber         = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey      = asn1.ObjectIdentifier{2, 5, 29, 35}
)

const removeFromCRL = 8 // a reason that takes an entry out again (RFC 5280 section 5.3.1)

// ReadCRL reads a CRL (DER or PEM) that the issuer signed and that is in force.
// Refused are lists that say less than they seem to: deltas, indirect ones,
// those for some reasons or for attribute certificates only, and any with a
// critical extension that is not known here.
func ReadCRL(b []byte, issuer *x509.Certificate, at time.Time) (CRL, error) {
	bad := func(format string, a ...any) (CRL, error) {
		return CRL{}, fmt.Errorf("CRL of %s: "+format+": %w", append(append([]any{issuer.Subject}, a...), cmg.ErrInvalid)...)
	}
	if len(b) > MaxCRL {
		return bad("more than %d bytes", MaxCRL)
	}
	if block, _ := pem.Decode(b); block != nil && bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----")) {
		b = block.Bytes
	}
	list, err := x509.ParseRevocationList(b)
	switch {
	case err != nil:
		return bad("%w", err)
	case !bytes.Equal(list.RawIssuer, issuer.RawSubject):
		return bad("%s issued it", list.Issuer)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return CRL{}, fmt.Errorf("CRL of %s: %w: %w", issuer.Subject, err, cmg.ErrUnauthenticated)
	}
	switch {
	case list.NextUpdate.IsZero():
		return bad("it does not say when the next one comes")
	case list.ThisUpdate.After(at.Add(clockSkew)):
		return bad("it is of %s, which has not come", list.ThisUpdate.UTC().Format(time.RFC3339))
	case !list.NextUpdate.After(at):
		return bad("it ended %s", list.NextUpdate.UTC().Format(time.RFC3339))
	}
	c := CRL{This: list.ThisUpdate.UTC(), Next: list.NextUpdate.UTC()}
	if err := c.readExtensions(list.Extensions); err != nil {
		return bad("%w", err)
	}
	if c.Revoked, err = serialsOf(list); err != nil {
		return bad("%w", err)
	}
	return c, nil
}

func (c *CRL) readExtensions(es []pkix.Extension) error {
	for _, e := range es {
		switch {
		case e.Id.Equal(oidDelta):
			return fmt.Errorf("it is a delta, which is not enough")
		case e.Id.Equal(oidIssuingPoint):
			if err := c.readPoint(e.Value); err != nil {
				return err
			}
		case e.Id.Equal(oidCRLNumber), e.Id.Equal(oidAuthorityKey):
		case e.Critical:
			return fmt.Errorf("its critical extension %s is not known", e.Id)
		}
	}
	return nil
}

// readPoint reads the issuing distribution point (RFC 5280 section 5.2.5).
func (c *CRL) readPoint(b []byte) error {
	var idp struct {
		Point struct {
			FullName []asn1.RawValue `asn1:"optional,tag:0"`
			Relative asn1.RawValue   `asn1:"optional,tag:1"`
		} `asn1:"optional,tag:0"`
		Users       bool           `asn1:"optional,tag:1"`
		Authorities bool           `asn1:"optional,tag:2"`
		Reasons     asn1.BitString `asn1:"optional,tag:3"`
		Indirect    bool           `asn1:"optional,tag:4"`
		Attributes  bool           `asn1:"optional,tag:5"`
	}
	rest, err := asn1.Unmarshal(b, &idp)
	switch {
	case err != nil || len(rest) > 0:
		return fmt.Errorf("its issuing distribution point cannot be read: %w", err)
	case idp.Indirect:
		return fmt.Errorf("it is indirect: another authority's certificates may stand in it")
	case idp.Attributes:
		return fmt.Errorf("it is for attribute certificates")
	case idp.Reasons.BitLength > 0:
		return fmt.Errorf("it is for some reasons only")
	case idp.Users && idp.Authorities:
		return fmt.Errorf("it is for users only and for authorities only")
	case len(idp.Point.Relative.FullBytes) > 0:
		return fmt.Errorf("its distribution point has a relative name")
	}
	if idp.Users {
		c.Scope = "users"
	} else if idp.Authorities {
		c.Scope = "authorities"
	}
	const uniformResourceIdentifier = 6 // of a GeneralName
	for _, n := range idp.Point.FullName {
		if n.Class == asn1.ClassContextSpecific && n.Tag == uniformResourceIdentifier {
			c.Points = append(c.Points, string(n.Bytes))
		}
	}
	if len(idp.Point.FullName) > 0 && len(c.Points) == 0 {
		return fmt.Errorf("its distribution point is named by no URI")
	}
	return nil
}

func serialsOf(list *x509.RevocationList) (*RevokedList, error) {
	keys := make([]uint64, 0, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical && x.Id.Equal(oidCertificateIssuer) {
				return nil, fmt.Errorf("it is indirect: an entry names another authority")
			}
		}
		if e.ReasonCode != removeFromCRL {
			keys = append(keys, serialKey(e.SerialNumber))
		}
	}
	return newRevokedList(keys)
}
