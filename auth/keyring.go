package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

// A Keyring holds the private keys a site signs its tokens with. One of them
// signs; the others are published too: older ones so that tokens they signed
// keep their value, a newer one so that every gateway knows it before it
// signs. It never changes, and may be used by many goroutines at once.
type Keyring struct {
	keys  []jose.JSONWebKey // private, with kid and alg
	times map[string]keyTimes
}

// keyTimes say when a key is used; zero: since ever.
type keyTimes struct {
	Made  time.Time `json:"made"`
	Signs time.Time `json:"signs"` // from when on it signs
}

// keyringFile is a JWK set with one member more, which other readers of JWK
// sets pass over (RFC 7517 section 5).
type keyringFile struct {
	Keys  []jose.JSONWebKey   `json:"keys"`
	Times map[string]keyTimes `json:"times,omitempty"` // by key id
}

// NewKeyring makes a keyring of one new ES256 key.
func NewKeyring() (*Keyring, error) {
	k, err := newTokenKey()
	if err != nil {
		return nil, err
	}
	return &Keyring{keys: []jose.JSONWebKey{k}}, nil
}

func newTokenKey() (k jose.JSONWebKey, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, fmt.Errorf("make token key: %w", err)
	}
	k = jose.JSONWebKey{Key: key, Algorithm: string(jose.ES256), Use: "sig"}
	sum, err := k.Thumbprint(crypto.SHA256) // RFC 7638
	if err != nil {
		return k, fmt.Errorf("name token key: %w", err)
	}
	k.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// LoadKeyring reads what Save wrote: a JWK set (RFC 7517 section 5) of
// private keys.
func LoadKeyring(file string) (*Keyring, error) {
	b, err := readFile("token keyring", file)
	if err != nil {
		return nil, err
	}
	bad := func(why string) error { return fmt.Errorf("token keyring %s: %s: %w", file, why, cmg.ErrInvalid) }
	var set keyringFile
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, bad("it is not a JWK set") // the cause could quote a key
	}
	if len(set.Keys) == 0 {
		return nil, bad("it holds no key")
	}
	k := &Keyring{keys: set.Keys, times: set.Times}
	for i := range k.keys {
		key := &k.keys[i]
		if key.IsPublic() {
			return nil, bad("it holds a public key")
		}
		pub := key.Public()
		alg, err := publicAlgorithm(&pub)
		if err != nil {
			return nil, fmt.Errorf("token keyring %s: key %d: %w", file, i+1, err)
		}
		key.Algorithm, key.Use = string(alg), "sig"
	}
	if _, err := NewTokens("check", k.PublicKeys()); err != nil {
		return nil, fmt.Errorf("token keyring %s: %w", file, err)
	}
	return k, nil
}

// Save writes the private keys into a new file of mode 0600. When it exists
// already nothing is written; the error is cmg.ErrConflict.
func (k *Keyring) Save(file string) error {
	b, err := k.text()
	if err != nil {
		return err
	}
	return writeNew(newFile{file, b, 0o600})
}

func (k *Keyring) text() ([]byte, error) {
	b, err := json.MarshalIndent(keyringFile{k.keys, k.times}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write token keyring: %w", err)
	}
	return append(b, '\n'), nil
}

// PublicKeys gives the public halves, JWK, for a cmg.Publication.
func (k *Keyring) PublicKeys() []json.RawMessage {
	keys := make([]json.RawMessage, len(k.keys))
	for i := range k.keys {
		b, err := k.keys[i].Public().MarshalJSON()
		if err != nil {
			panic(fmt.Sprintf("auth: a key that was checked cannot be written: %v", err))
		}
		keys[i] = b
	}
	return keys
}

// Issue signs a token. An empty ID becomes a new GUID, a zero NotBefore now;
// Claims that Verify would refuse are an error here, and so is a token that
// would be too long (cmg.ErrTooLarge): about fifty packages fit into one.
func (k *Keyring) Issue(c Claims) (string, error) {
	if c.ID == "" {
		c.ID = cmg.NewGUID()
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now()
	}
	c.NotBefore, c.Expires = c.NotBefore.Truncate(time.Second), c.Expires.Truncate(time.Second)
	if err := c.check(); err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	if c.Device != "" {
		if _, err := cmg.ParseDeviceID(string(c.Device)); err != nil {
			return "", fmt.Errorf("issue token: %w", err)
		}
	}
	key := k.signer(c.NotBefore)
	token, err := signCompact(jose.SignatureAlgorithm(key.Algorithm), key.Key, key.KeyID, "JWT", (wireClaims{
		Issuer: issuerPrefix + c.Site, Audience: c.Kind.audience(), Kind: c.Kind, ID: c.ID, Device: c.Device,
		Issued: c.NotBefore.Unix(), From: c.NotBefore.Unix(), Until: c.Expires.Unix(),
		Packages: c.Packages, Note: c.Note, Grace: int64(c.Grace / time.Second),
	}).asField(c))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if len(token) > maxToken {
		return "", fmt.Errorf("issue token: %d packages make it longer than 8 KiB: %w", len(c.Packages), cmg.ErrTooLarge)
	}
	return token, nil
}
