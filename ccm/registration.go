package ccm

import (
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A Registration is a client's wish to be known (PROTOCOL 4.1).
type Registration struct {
	SMSID        cmg.DeviceID // empty: the site chooses; else a device that registers again
	NetBIOSName  string
	FQDN         string
	AgentVersion string
	Signing      []byte    // certificate, DER, whose key signs this registration and all messages
	Encryption   []byte    // certificate, DER, for which secrets are encrypted; may be the same
	Hardware     string    // what names the machine whatever is installed on it; empty: not said
	Time         time.Time // zero where the sender's time cannot be read
}

// XML writes the registration, signed with key, to which Signing belongs.
func (r Registration) XML(key *rsa.PrivateKey) (string, error) {
	encryption := r.Encryption
	if len(encryption) == 0 {
		encryption = r.Signing
	}
	properties := el("DiscoveryProperties").add(
		el("Property", "Name", "Netbios Name", "Value", r.NetBIOSName),
		el("Property", "Name", "FQ Name", "Value", r.FQDN),
		el("Property", "Name", "Locale ID", "Value", "2057"),
		el("Property", "Name", "InternetFlag", "Value", "1"))
	if r.Hardware != "" { // the name is ours: no sender of the field is known to say it here
		properties.add(el("Property", "Name", "Hardware ID", "Value", r.Hardware))
	}
	data := el("Data", "HashAlgorithm", HashAlgorithm, "SMSID", string(r.SMSID),
		"RequestType", "Registration", "TimeStamp", r.Time.UTC().Format(TimeLayout)).add(
		el("AgentInformation", "AgentIdentity", "CCMSetup.exe", "AgentVersion", r.AgentVersion, "AgentType", "0"),
		el("Certificates").add(certElement("Encryption", encryption), certElement("Signing", r.Signing)),
		properties).String()
	sig, err := Sign(key, EncodeUTF16(data, false))
	if err != nil {
		return "", fmt.Errorf("write registration: %w", err)
	}
	return "<ClientRegistrationRequest>" + data + "<Signature><SignatureValue>" + sig +
		"</SignatureValue></Signature></ClientRegistrationRequest>", nil
}

func certElement(name string, der []byte) *element {
	e := el(name, "Encoding", "HexBinary", "KeyType", "1")
	e.text = strings.ToUpper(hex.EncodeToString(der))
	return e
}

// ReadRegistration reads a registration and checks that the holder of its
// signing key wrote it: the signature is verified over the text from "<Data "
// to "</Data>" exactly as transmitted, and everything that is returned was
// read from that text alone.
func ReadRegistration(text string) (Registration, error) {
	r, err := readRegistration(text)
	if err != nil {
		return Registration{}, fmt.Errorf("read registration: %w", err)
	}
	return r, nil
}

func readRegistration(text string) (r Registration, err error) {
	root, err := parseRoot(text, "ClientRegistrationRequest")
	if err != nil {
		return r, err
	}
	if _, err := root.one("Data"); err != nil {
		return r, err
	}
	signature, err := root.one("Signature")
	if err != nil {
		return r, err
	}
	from, to := strings.Index(text, "<Data "), strings.LastIndex(text, "</Data>")
	if from < 0 || to < from {
		return r, fmt.Errorf("no element Data with attributes: %w", cmg.ErrInvalid)
	}
	signed := text[from : to+len("</Data>")]
	data, err := parseRoot(signed, "Data")
	if err != nil {
		return r, err
	}
	if err := r.read(data); err != nil {
		return r, err
	}
	pub, err := SigningKey(r.Signing)
	if err != nil {
		return r, err
	}
	return r, Verify(pub, EncodeUTF16(signed, false), signature.find("SignatureValue").value())
}

func (r *Registration) read(data *element) (err error) {
	if kind := data.attr("RequestType"); kind != "" && !strings.EqualFold(kind, "Registration") {
		return fmt.Errorf("request type %.60q: %w", kind, cmg.ErrInvalid)
	}
	if a := data.attr("HashAlgorithm"); a != HashAlgorithm {
		return fmt.Errorf("hash algorithm %.60q: %w", a, cmg.ErrInvalid)
	}
	if id := data.attr("SMSID"); id != "" {
		if r.SMSID, err = cmg.ParseDeviceID(id); err != nil {
			return err
		}
	}
	r.Time, _ = time.Parse(TimeLayout, data.attr("TimeStamp"))
	if r.AgentVersion, err = short("agent version", data.find("AgentInformation").attr("AgentVersion"), 64); err != nil {
		return err
	}
	for _, p := range data.find("DiscoveryProperties").all("Property") {
		switch v := p.attr("Value"); strings.ToLower(p.attr("Name")) {
		case "netbios name":
			r.NetBIOSName, err = short("NetBIOS name", v, 256)
		case "fq name":
			r.FQDN, err = short("FQ name", v, 256)
		case "hardware id":
			r.Hardware, err = short("hardware id", v, 128)
		}
		if err != nil {
			return err
		}
	}
	certs := data.find("Certificates")
	if r.Signing, err = hexValue(certs.find("Signing")); err != nil {
		return err
	}
	if len(r.Signing) == 0 {
		return fmt.Errorf("no signing certificate: %w", cmg.ErrInvalid)
	}
	if r.Encryption, err = hexValue(certs.find("Encryption")); err != nil || len(r.Encryption) == 0 {
		return err
	}
	if _, err := SigningKey(r.Encryption); err != nil { // the same sort of key
		return fmt.Errorf("encryption certificate: %w", err)
	}
	return nil
}

// short gives v where it is at most limit bytes without control characters.
func short(what, v string, limit int) (string, error) {
	if len(v) > limit || strings.ContainsFunc(v, isControl) {
		return "", fmt.Errorf("%s %.60q is long or holds control characters: %w", what, v, cmg.ErrInvalid)
	}
	return v, nil
}

// hexValue reads hex digits; blanks and line breaks may stand between them.
func hexValue(e *element) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(e.text), ""))
	if err != nil {
		return nil, fmt.Errorf("%s is not hexadecimal: %w", e.name, cmg.ErrInvalid)
	}
	return b, nil
}

// A RegistrationReply answers a registration. The field's readers need only
// the root's SMSID (PROTOCOL 4.2); the rest is ours.
type RegistrationReply struct {
	SMSID       cmg.DeviceID
	Approval    cmg.Approval
	Time        time.Time
	DeviceToken string    // opens the token service; empty where the device has a client certificate
	Expires     time.Time // of DeviceToken
}

// The field writes the approval as a number; 0 and 1 are its values for
// unapproved and approved, 2 for blocked.
var approvalNumbers = map[cmg.Approval]string{cmg.Pending: "0", cmg.Approved: "1", cmg.Blocked: "2"}

// XML writes the reply.
func (r RegistrationReply) XML() string {
	e := el("ClientRegistrationResponse", "SMSID", string(r.SMSID), "Status", "0",
		"ApprovalStatus", approvalNumbers[r.Approval], "TimeStamp", r.Time.UTC().Format(TimeLayout))
	if r.DeviceToken != "" {
		t := el("DeviceToken", "Expires", r.Expires.UTC().Format(TimeLayout))
		t.text = r.DeviceToken
		e.add(t)
	}
	return e.String()
}

// ReadRegistrationReply reads what XML writes.
func ReadRegistrationReply(text string) (RegistrationReply, error) {
	r, err := readRegistrationReply(text)
	if err != nil {
		return RegistrationReply{}, fmt.Errorf("read registration reply: %w", err)
	}
	return r, nil
}

func readRegistrationReply(text string) (r RegistrationReply, err error) {
	e, err := parseRoot(text, "ClientRegistrationResponse")
	if err != nil {
		return r, err
	}
	if r.SMSID, err = cmg.ParseDeviceID(e.attr("SMSID")); err != nil {
		return r, err
	}
	for approval, number := range approvalNumbers {
		if e.attr("ApprovalStatus") == number {
			r.Approval = approval
		}
	}
	r.Time, _ = time.Parse(TimeLayout, e.attr("TimeStamp"))
	if t := e.find("DeviceToken"); t.value() != "" {
		r.DeviceToken = t.value()
		if r.Expires, err = time.Parse(TimeLayout, t.attr("Expires")); err != nil {
			return r, fmt.Errorf("expiry of the device token %.40q: %w", t.attr("Expires"), cmg.ErrInvalid)
		}
	}
	return r, nil
}
