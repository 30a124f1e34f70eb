package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencmg/cmg"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
	maxFile        = 1 << 20       // bytes; no certificate bundle or key file comes near
)

// readFile reads a small file; what says which one it is to whoever has to
// mend it.
func readFile(what, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("no %s file is named: %w", what, cmg.ErrInvalid)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", what, name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s %s: more than %d bytes: %w", what, name, maxFile, cmg.ErrTooLarge)
	}
	return b, nil
}

// newFile is one file that writeNew makes.
type newFile struct {
	name string
	data []byte
	mode os.FileMode
}

// writeNew makes all of the files, or none: one that exists already is never
// touched.
func writeNew(files ...newFile) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				os.Remove(name)
			}
		}
	}()
	for _, n := range files {
		f, err := os.OpenFile(n.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, n.mode)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write %s: it is there already: %w", n.name, cmg.ErrConflict)
		}
		if err != nil {
			return fmt.Errorf("write new file: %w", err)
		}
		made = append(made, n.name)
		_, err = f.Write(n.data)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", n.name, err)
		}
	}
	return nil
}

// certificatesIn reads every certificate of a PEM file, in its order. Other
// blocks, such as a key in the same file, are passed over.
func certificatesIn(b []byte) ([]*x509.Certificate, error) {
	var cs []*x509.Certificate
	for len(bytes.TrimSpace(b)) > 0 {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != pemCertificate {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w: %w", len(cs)+1, err, cmg.ErrInvalid)
		}
		cs = append(cs, c)
	}
	if len(cs) == 0 {
		return nil, fmt.Errorf("no PEM certificate in it: %w", cmg.ErrInvalid)
	}
	return cs, nil
}

func certificatePEM(cs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range cs {
		pem.Encode(&b, &pem.Block{Type: pemCertificate, Bytes: c.Raw}) // a Buffer takes everything
	}
	return b.Bytes()
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// replaceFile writes a private file so that a crash leaves the old or the new
// one.
func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name()) // after the rename there is none of that name
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
