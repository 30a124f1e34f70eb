package channel

import "fmt"

// maxKeys bounds the document of a KEYS frame.
const maxKeys = 4 << 10

// SendKeys sends a secret document of at most 4 KiB to the outside, which
// keeps it in memory only. Nothing is answered. Inside only.
func (s *Session) SendKeys(doc []byte) error {
	if len(doc) > maxKeys {
		return fmt.Errorf("keys of %d bytes are over %d", len(doc), maxKeys)
	}
	return s.w.send(frameKeys, flagEnd, 0, nil, doc)
}

// takeKeys hands the document of a KEYS frame on.
func (s *Session) takeKeys(p []byte) error {
	if !s.outside || len(p) > maxKeys {
		return fmt.Errorf("%w: keys that are not wanted, or too large", errProtocol)
	}
	if s.cfg.Keys != nil {
		s.cfg.Keys(p)
	}
	return nil
}
