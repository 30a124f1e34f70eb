package managementpoint

import (
	"crypto"
	"sync"

	"github.com/opencmg/cmg/ccm"
)

// maxSignatures bounds the signatures that are kept: far more than a site has
// policies in force.
const maxSignatures = 10_000

// signatures are those of assignments by one key. What is signed is the same
// for every device, so that a policy costs one signature and not one for each
// device that asks.
type signatures struct {
	mu   sync.Mutex
	made map[ccm.Assignment]string
}

// sign puts the site's signature into a.
func (s *signatures) sign(a *ccm.Assignment, key crypto.Signer) error {
	s.mu.Lock()
	signature := s.made[*a]
	s.mu.Unlock()
	if signature != "" {
		a.Signature = signature
		return nil
	}
	unsigned := *a
	if err := a.Sign(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil || len(s.made) >= maxSignatures {
		s.made = map[ccm.Assignment]string{}
	}
	s.made[unsigned] = a.Signature
	return nil
}
