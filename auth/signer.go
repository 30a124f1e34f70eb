package auth

import "crypto"

// Signer gives the identity's key for signatures in the field's own forms,
// which package ccm makes. Everything else is signed in this package.
func (id *Identity) Signer() crypto.Signer {
	s, _ := id.key().(crypto.Signer) // every key that LoadIdentity takes is one
	return s
}
