package auth

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/opencmg/cmg"
)

// ClientUsable says why a client certificate cannot prove anybody at a time:
// its files cannot be read or do not belong together, it is not valid then, or
// not for clients. Whether a gateway trusts its authority only the gateway
// knows.
func ClientUsable(f ClientFiles, at time.Time) error {
	cert, err := readFile("certificate", f.Certificate)
	if err != nil {
		return err
	}
	key, err := readFile("key", f.Key)
	if err != nil {
		return err
	}
	_, chain, err := loadPair(source{"certificate " + f.Certificate, cert}, source{"key " + f.Key, key})
	if err != nil {
		return err
	}
	leaf := chain[0]
	switch {
	case at.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s is not valid before %s: %w", f.Certificate, leaf.NotBefore.UTC().Format(time.RFC3339), cmg.ErrUnauthenticated)
	case at.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s expired %s: %w", f.Certificate, leaf.NotAfter.UTC().Format(time.RFC3339), cmg.ErrUnauthenticated)
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0: // no usage at all is every usage
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return fmt.Errorf("certificate %s is not for client authentication: %w", f.Certificate, cmg.ErrUnauthenticated)
	}
	return nil
}
