package blob

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/opencmg/cmg"
)

// MinKey is the fewest bytes that a store's key may have.
const MinKey = 32

// maxKey bounds what LoadKey reads.
const maxKey = 1024

// NewKey makes a random store key of 32 bytes.
func NewKey() []byte {
	k := make([]byte, MinKey)
	rand.Read(k) // never fails
	return k
}

// LoadKey reads a store's key: the file's bytes as they are, 32 to 1,024 of
// them.
func LoadKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open store key: %w", err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, maxKey+1)); err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	if b.Len() < MinKey || b.Len() > maxKey {
		return nil, fmt.Errorf("store key %s has %d bytes, not 32 to 1,024: %w", file, b.Len(), cmg.ErrInvalid)
	}
	return b.Bytes(), nil
}

// SaveKey writes a key that only its owner may read. It never overwrites.
func SaveKey(file string, key []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create store key: %w", err)
	}
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(file)
		return fmt.Errorf("write store key: %w", err)
	}
	return nil
}
