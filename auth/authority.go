package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/opencmg/cmg"
)

const (
	yearOfDays = 365 * 24 * time.Hour
	rsaBits    = 2048
	// backdate keeps a new certificate valid on a machine whose clock is a
	// little behind ours.
	backdate = 5 * time.Minute
)

// An Authority issues certificates. It may be used by many goroutines at once.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	above []*x509.Certificate // from cert's issuer upward, where cert is not a root
}

// NewAuthority makes a root authority with an ECDSA P-256 key, valid from now
// for life. It may issue certificates to roles and devices, not to further
// authorities.
func NewAuthority(commonName string, life time.Duration) (*Authority, error) {
	if commonName == "" || life <= 0 {
		return nil, fmt.Errorf("make authority: it needs a name and a life: %w", cmg.ErrInvalid)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority's key: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	a := &Authority{key: key}
	if a.cert, err = sign(t, t, key.Public(), key); err != nil {
		return nil, fmt.Errorf("make authority %q: %w", commonName, err)
	}
	return a, nil
}

// LoadAuthority reads what Save wrote, or an authority that another one
// issued: then certFile goes on with the certificates above it. The error
// says which file is at fault.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	certPEM, err := readFile("authority certificate", certFile)
	if err != nil {
		return nil, err
	}
	key, err := readFile("authority key", keyFile)
	if err != nil {
		return nil, err
	}
	chain, err := certificatesIn(certPEM)
	if err != nil {
		return nil, fmt.Errorf("authority certificate %s: %w", certFile, err)
	}
	pair, err := tls.X509KeyPair(certPEM, key)
	if err != nil {
		return nil, fmt.Errorf("authority key %s does not serve for %s: %w: %w", keyFile, certFile, err, cmg.ErrInvalid)
	}
	if !chain[0].IsCA {
		return nil, fmt.Errorf("authority certificate %s: %s may not issue certificates: %w", certFile, chain[0].Subject, cmg.ErrInvalid)
	}
	return &Authority{cert: chain[0], key: pair.PrivateKey.(crypto.Signer), above: chain[1:]}, nil
}

// Certificate gives the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Save writes certificate and key (mode 0600) into two new files. When either
// exists already it writes nothing; the error is cmg.ErrConflict.
func (a *Authority) Save(certFile, keyFile string) error {
	key, err := keyPEM(a.key)
	if err != nil {
		return err
	}
	cs := append([]*x509.Certificate{a.cert}, a.above...)
	return Issued{CertPEM: certificatePEM(cs...), KeyPEM: key}.Save(certFile, keyFile)
}

// A CertRequest says what certificate to issue.
type CertRequest struct {
	Site string        // site code; needed with Role or Device
	Role cmg.RoleKind  // role it speaks for; empty for none, as for a client that is no device yet
	Name string        // the role's name; also the common name. Empty with Device: the common name is the device id
	DNS  []string      // host names of a server
	IPs  []net.IP      // addresses of a server
	Life time.Duration // 0: one year. It never outlives the authority

	NotBefore time.Time // zero: five minutes ago

	Server bool // for TLS servers
	Client bool // for TLS clients; a device's certificate always is

	Device cmg.DeviceID // makes it the certificate of this device (role agent)
	RSA    bool         // RSA 2048 in place of ECDSA P-256
}

// Issued is a certificate with its key. CertPEM goes on with the issuing
// authority where that is not a root.
type Issued struct {
	Certificate     *x509.Certificate
	CertPEM, KeyPEM []byte // PEM; the key as PKCS #8
}

// Save writes both into new files, the key with mode 0600. When either exists
// already it writes nothing; the error is cmg.ErrConflict.
func (i Issued) Save(certFile, keyFile string) error {
	return writeNew(newFile{keyFile, i.KeyPEM, 0o600}, newFile{certFile, i.CertPEM, 0o644})
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(r CertRequest) (Issued, error) {
	t, err := a.template(r)
	if err != nil {
		return Issued{}, err
	}
	key, err := newKey(r.RSA)
	if err != nil {
		return Issued{}, err
	}
	cert, err := sign(t, a.cert, key.Public(), a.key)
	if err != nil {
		return Issued{}, fmt.Errorf("issue certificate to %q: %w", t.Subject.CommonName, err)
	}
	i := Issued{Certificate: cert, CertPEM: certificatePEM(cert)}
	if !IsRoot(a.cert) { // whoever verifies needs the link
		i.CertPEM = append(i.CertPEM, certificatePEM(a.cert)...)
	}
	if i.KeyPEM, err = keyPEM(key); err != nil {
		return Issued{}, err
	}
	return i, nil
}

func (a *Authority) template(r CertRequest) (*x509.Certificate, error) {
	if r.Life == 0 {
		r.Life = yearOfDays
	}
	if r.NotBefore.IsZero() {
		r.NotBefore = time.Now().Add(-backdate)
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: r.Name},
		NotBefore:             r.NotBefore,
		NotAfter:              r.NotBefore.Add(r.Life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              r.DNS,
		IPAddresses:           r.IPs,
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if !t.NotAfter.After(t.NotBefore) {
		return nil, fmt.Errorf("issue certificate to %q: the authority ends %s: %w", r.Name, a.cert.NotAfter.Format(time.RFC3339), cmg.ErrConflict)
	}
	name := RoleName{Site: r.Site, Role: r.Role, Name: r.Name}
	if r.Device != "" {
		id, err := cmg.ParseDeviceID(string(r.Device))
		if err != nil || (r.Role != "" && r.Role != cmg.RoleAgent) {
			return nil, fmt.Errorf("issue certificate of role %q to device %.60q: %w", r.Role, r.Device, cmg.ErrInvalid)
		}
		name.Role, name.Name, r.Client = cmg.RoleAgent, id.GUID(), true
		if r.Name == "" {
			t.Subject.CommonName = string(id)
		}
	}
	if name.Role != "" {
		if err := name.check(); err != nil {
			return nil, fmt.Errorf("issue certificate: %w", err)
		}
		t.URIs = []*url.URL{{Scheme: "cmg", Host: name.Site, Path: "/" + string(name.Role) + "/" + name.Name}}
	}
	if t.Subject.CommonName == "" {
		return nil, fmt.Errorf("issue certificate: it names nobody: %w", cmg.ErrInvalid)
	}
	if r.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(t.ExtKeyUsage) == 0 {
		// No usage at all would mean every usage. It only signs (RFC 9336).
		t.UnknownExtKeyUsage = append(t.UnknownExtKeyUsage, documentSigning)
	}
	return t, nil
}

// documentSigning is id-kp-documentSigning, RFC 9336.
var documentSigning = []int{1, 3, 6, 1, 5, 5, 7, 3, 36}

func newKey(asRSA bool) (crypto.Signer, error) {
	if asRSA {
		key, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, fmt.Errorf("make RSA key: %w", err)
		}
		return key, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make ECDSA key: %w", err)
	}
	return key, nil
}

// sign fills in a random serial number (RFC 5280 section 4.1.2.2) and makes
// the certificate.
func sign(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
