package auth

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// ticketLabel separates these keys from any others made of the same secrets.
const ticketLabel = "OpenCMG session tickets 1"

// A TicketScope is what session tickets are good for. A ticket of another
// scope cannot be read: whoever shows it makes a full handshake.
type TicketScope struct {
	Site    string   // code
	Anchors []string // PEM: the authorities of clients, as published
}

// SetTicketKeys lets the settings of a gateway's front make and take session
// tickets with keys derived of the secrets that hold at a time, for the scope
// and the host names of the front's certificate. Tickets are made with the
// youngest whose time has come. Without any such secret nothing changes, and
// false is returned. It may be called while the settings are in use.
func SetTicketKeys(front *tls.Config, scope TicketScope, secrets []cmg.TicketSecret, at time.Time) bool {
	holding := slices.DeleteFunc(slices.Clone(secrets), func(s cmg.TicketSecret) bool { return !at.Before(s.Until) })
	slices.SortFunc(holding, func(a, b cmg.TicketSecret) int {
		if started := func(s cmg.TicketSecret) bool { return !at.Before(s.From) }; started(a) != started(b) {
			if started(a) {
				return -1
			}
			return 1
		}
		if c := b.From.Compare(a.From); c != 0 { // the youngest first
			return c
		}
		return strings.Compare(a.ID, b.ID) // every instance chooses the same
	})
	if len(holding) == 0 {
		return false
	}
	info := scope.info(front)
	keys := make([][32]byte, len(holding))
	for i, s := range holding {
		k, err := hkdf.Key(sha256.New, s.Secret, nil, info, 32)
		if err != nil {
			panic(fmt.Sprintf("auth: derive ticket key: %v", err)) // of so short a key it cannot fail
		}
		copy(keys[i][:], k)
	}
	front.SetSessionTicketKeys(keys)
	return true
}

// info binds keys to the scope: each part behind its length.
func (s TicketScope) info(front *tls.Config) string {
	parts := []string{ticketLabel, s.Site}
	anchors := slices.Clone(s.Anchors)
	slices.Sort(anchors)
	parts = append(parts, anchors...)
	if len(front.Certificates) > 0 {
		leaf := front.Certificates[0].Leaf
		if leaf == nil {
			leaf, _ = x509.ParseCertificate(front.Certificates[0].Certificate[0])
		}
		if leaf != nil {
			names := slices.Clone(leaf.DNSNames)
			slices.Sort(names)
			parts = append(parts, names...)
		}
	}
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return string(h.Sum(nil))
}
