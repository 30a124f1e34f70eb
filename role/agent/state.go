package agent

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// state is what the agent has to know after a restart.
type state struct {
	Device     cmg.DeviceID          `json:"device,omitempty"`
	Approval   cmg.Approval          `json:"approval,omitempty"`
	Registered time.Time             `json:"registered,omitzero"`
	Token      token                 `json:"device_token,omitzero"`
	Session    token                 `json:"session_token,omitzero"`
	Proved     time.Time             `json:"proved,omitzero"`    // time in the last client token
	Site       []byte                `json:"site,omitempty"`     // signing certificate of the site, DER, as it was shown first
	Policies   map[string]*obedience `json:"policies,omitempty"` // by policy id
	Serial     int                   `json:"serial"`             // of the last state message
	Outbox     []outgoing            `json:"outbox,omitempty"`
	Discovered time.Time             `json:"discovered,omitzero"` // when the last discovery record was made
}

// A token and when it is worth something.
type token struct {
	Value   string    `json:"value"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// An obedience is how far the agent got with one policy.
type obedience struct {
	Digest  cmg.Digest  `json:"digest"` // of the policy's body
	State   string      `json:"state"`  // succeeded or failed
	Detail  string      `json:"detail,omitempty"`
	At      time.Time   `json:"at"`
	Content []installed `json:"content,omitempty"`
}

const (
	succeeded = "succeeded"
	failed    = "failed"
)

// An installed is one package in its folder.
type installed struct {
	ID       cmg.PackageID `json:"id"`
	Version  int           `json:"version"`
	Folder   string        `json:"folder"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	Verified bool          `json:"verified"` // every file's SHA-256 was compared
}

// An outgoing is a report that was not acknowledged yet. Its id stays, so that
// a management point that has it already ignores it.
type outgoing struct {
	ID       string   `json:"id"`
	Endpoint string   `json:"endpoint"`
	Body     string   `json:"body"`
	Before   []string `json:"before,omitempty"` // documents in front of the body
}

// A stateStore is the folder that holds the state.
type stateStore struct{ dir string }

const (
	stateFile    = "state.json"
	identityFile = "identity.pem"
)

func openState(dir string) (*stateStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	return &stateStore{dir}, nil
}

func (s *stateStore) load() (st state, err error) {
	file := filepath.Join(s.dir, stateFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return state{Policies: map[string]*obedience{}}, nil
	}
	if err != nil {
		return st, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("read state %s: %w", file, err)
	}
	if st.Policies == nil {
		st.Policies = map[string]*obedience{}
	}
	for id, p := range st.Policies {
		if p == nil {
			delete(st.Policies, id)
		}
	}
	return st, nil
}

func (s *stateStore) save(st state) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return s.write(stateFile, b)
}

// write puts b under name whole or not at all.
func (s *stateStore) write(name string, b []byte) (err error) {
	f, err := os.CreateTemp(s.dir, name+".*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(s.dir, name))
}

// An identity is the device's own key and its self-signed certificate.
type identity struct {
	key  *rsa.PrivateKey
	der  []byte
	cert *x509.Certificate
}

// identity reads the device's key and certificate, fs.ErrNotExist where there
// are none yet.
func (s *stateStore) identity() (id identity, err error) {
	file := filepath.Join(s.dir, identityFile)
	b, err := os.ReadFile(file)
	if err != nil {
		return id, fmt.Errorf("read device identity: %w", err)
	}
	bad := func(why any) (identity, error) {
		return identity{}, fmt.Errorf("read device identity %s: %v: %w", file, why, cmg.ErrInvalid)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return bad(err)
			}
			id.key, _ = key.(*rsa.PrivateKey)
		case "CERTIFICATE":
			if id.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return bad(err)
			}
			id.der = block.Bytes
		}
	}
	if id.key == nil || id.cert == nil || !id.key.PublicKey.Equal(id.cert.PublicKey) {
		return bad("it is not an RSA key and its certificate")
	}
	return id, nil
}

func (s *stateStore) saveIdentity(key *rsa.PrivateKey, der []byte) error {
	p8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write device identity: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return s.write(identityFile, b)
}

// prepareIdentity reads or makes the device's key; a certificate that runs
// out within a month is replaced by a new one for the same key.
func (a *Agent) prepareIdentity() error {
	if a.identity.key == nil {
		id, err := a.store.identity()
		if errors.Is(err, fs.ErrNotExist) {
			return a.newIdentity()
		}
		if err != nil {
			return err
		}
		a.identity = id
	}
	if now := a.cfg.Now(); now.AddDate(0, 1, 0).After(a.identity.cert.NotAfter) {
		der, err := ccm.SelfSign(a.identity.key, now)
		if err != nil {
			return err
		}
		a.state.Registered = time.Time{} // the site has to learn it
		return a.keepIdentity(a.identity.key, der)
	}
	return nil
}

func (a *Agent) newIdentity() error {
	der, key, err := ccm.NewClientCertificate(a.cfg.Now())
	if err != nil {
		return err
	}
	return a.keepIdentity(key, der)
}

func (a *Agent) keepIdentity(key *rsa.PrivateKey, der []byte) error {
	if err := a.store.saveIdentity(key, der); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read own certificate: %w", err)
	}
	a.identity = identity{key, der, cert}
	return nil
}
