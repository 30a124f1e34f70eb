package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"

	"github.com/opencmg/cmg"
)

// A RevokedList holds the serial numbers that one authority has revoked, in
// eight bytes each: the beginning of their SHA-256. By chance a certificate
// that was not revoked is taken for one that was once in 10¹⁴, with 100,000 in
// the list. It never changes, and may be used by many goroutines at once.
type RevokedList struct{ keys []uint64 }

const (
	listMagic  = "cmgcrl1\n"
	maxRevoked = 2 << 20 // serial numbers: 16 MiB
	// MaxRevokedList bounds the document of a list, in bytes.
	MaxRevokedList = len(listMagic) + 8*maxRevoked
)

// serialKey is what stands for a serial number. Its sign counts: some
// authorities made negative ones.
func serialKey(n *big.Int) uint64 {
	var room [64]byte
	b := append(room[:0], byte(n.Sign()+1))
	sum := sha256.Sum256(append(b, n.Bytes()...))
	return binary.BigEndian.Uint64(sum[:])
}

// newRevokedList makes a list of keys, which it takes over.
func newRevokedList(keys []uint64) (*RevokedList, error) {
	if len(keys) > maxRevoked {
		return nil, fmt.Errorf("list of %d revoked certificates, at most %d: %w", len(keys), maxRevoked, cmg.ErrTooLarge)
	}
	slices.Sort(keys)
	return &RevokedList{slices.Compact(keys)}, nil
}

// Has says whether the serial number is revoked.
func (l *RevokedList) Has(serial *big.Int) bool {
	if l == nil || len(l.keys) == 0 {
		return false
	}
	_, ok := slices.BinarySearch(l.keys, serialKey(serial))
	return ok
}

// Len is how many serial numbers the list holds.
func (l *RevokedList) Len() int { return len(l.keys) }

// Document writes the list: eight bytes of name, then the keys in order, big
// endian. Equal lists give equal documents.
func (l *RevokedList) Document() []byte {
	b := make([]byte, 0, len(listMagic)+8*len(l.keys))
	b = append(b, listMagic...)
	for _, k := range l.keys {
		b = binary.BigEndian.AppendUint64(b, k)
	}
	return b
}

// ReadRevokedList reads what Document wrote, and nothing else.
func ReadRevokedList(b []byte) (*RevokedList, error) {
	if len(b) > MaxRevokedList {
		return nil, fmt.Errorf("read list of revoked certificates: %d bytes, at most %d: %w", len(b), MaxRevokedList, cmg.ErrTooLarge)
	}
	if len(b) < len(listMagic) || string(b[:len(listMagic)]) != listMagic || (len(b)-len(listMagic))%8 != 0 {
		return nil, fmt.Errorf("read list of revoked certificates: it is none: %w", cmg.ErrInvalid)
	}
	b = b[len(listMagic):]
	l := &RevokedList{keys: make([]uint64, 0, len(b)/8)}
	for ; len(b) > 0; b = b[8:] {
		k := binary.BigEndian.Uint64(b)
		if n := len(l.keys); n > 0 && l.keys[n-1] >= k {
			return nil, fmt.Errorf("read list of revoked certificates: it is not in order: %w", cmg.ErrInvalid)
		}
		l.keys = append(l.keys, k)
	}
	return l, nil
}
