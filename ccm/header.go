package ccm

import (
	"fmt"
	"strings"

	"github.com/opencmg/cmg"
)

// maxHeaderText bounds each text of a header, in bytes.
const maxHeaderText = 1024

// readHeader reads what the element Msg says, in any order. Where an element
// stands twice the message is refused: two readers could choose differently.
func (m *Message) readHeader(root *element) error {
	single := map[string]*string{
		"CorrelationID": &m.CorrelationID, "ID": &m.ID, "ReplyTo": &m.ReplyTo, "ReplyMode": &m.ReplyMode,
		"SentTime": &m.SentTime, "SourceHost": &m.SourceHost, "TargetEndpoint": &m.TargetEndpoint, "TargetHost": &m.TargetHost,
	}
	source := ""
	single["SourceID"] = &source
	for name, to := range single {
		found := root.all(name)
		if len(found) > 1 {
			return fmt.Errorf("%s stands twice: %w", name, cmg.ErrInvalid)
		}
		if len(found) == 0 {
			continue
		}
		v := found[0].value()
		if len(v) > maxHeaderText || strings.ContainsFunc(v, isControl) {
			return fmt.Errorf("%s %.60q is long or holds control characters: %w", name, v, cmg.ErrInvalid)
		}
		*to = v
	}
	m.ReplyCompression = strings.ToLower(root.attr("ReplyCompression"))
	var err error
	if m.ID, err = bracedGUID(m.ID); err != nil {
		return fmt.Errorf("message id: %w", err)
	}
	if source != "" {
		if m.Source, err = cmg.ParseDeviceID(source); err != nil {
			return fmt.Errorf("source: %w", err)
		}
	}
	return m.readHooks(root)
}

// readHooks reads the hooks by their Name: the elements are called Hook,
// Hook2 or Hook3 as the sender likes.
func (m *Message) readHooks(root *element) error {
	for _, h := range root.find("Hooks").children {
		if !strings.HasPrefix(strings.ToLower(h.name), "hook") {
			continue
		}
		switch strings.ToLower(h.attr("Name")) {
		case "zlib-compress":
			m.Hooks.Compressed = true
		case "clientauth":
			for _, p := range h.children {
				if err := m.Hooks.set(p.attr("Name"), p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *Hooks) set(name string, p *element) error {
	v := p.value()
	if v == "" {
		v = p.attr("Value")
	}
	var to *string
	switch strings.ToLower(name) {
	case "authsendermachine":
		to = &h.SenderMachine
	case "publickey":
		to = &h.PublicKey
	case "clientidsignature":
		to = &h.ClientIDSignature
	case "payloadsignature":
		to = &h.PayloadSignature
	case "clientcapabilities", "clientcapability":
		to = &h.Capabilities
	case "hashalgorithm":
		to = &h.HashAlgorithm
	case "token":
		h.Token, h.TokenSignature = tokenLines(v)
		return nil
	default:
		return nil
	}
	if *to != "" && *to != v {
		return fmt.Errorf("hook property %s stands twice: %w", name, cmg.ErrInvalid)
	}
	*to = v
	return nil
}

// tokenLines reads the form in which a hook holds two header lines.
func tokenLines(v string) (token, signature string) {
	for line := range strings.Lines(v) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case strings.EqualFold(strings.TrimSpace(name), HeaderClientToken):
			token = strings.TrimSpace(value)
		case strings.EqualFold(strings.TrimSpace(name), HeaderClientTokenSignature):
			signature = strings.TrimSpace(value)
		}
	}
	return token, signature
}

// locate finds body and attachments in the decompressed payload.
func (m *Message) locate(root *element, data []byte, wholeBody bool) error {
	body, err := root.one("Body")
	if err != nil {
		return err
	}
	if m.Body, err = byteRange(body, data, wholeBody); err != nil {
		return err
	}
	attached := root.all("Attachment")
	if len(attached) > 64 {
		return fmt.Errorf("%d attachments: %w", len(attached), cmg.ErrTooLarge)
	}
	for _, a := range attached {
		b, err := byteRange(a, data, false)
		if err != nil {
			return err
		}
		m.Attachments = append(m.Attachments, Attachment{Name: a.attr("Name"), Data: b})
	}
	return nil
}

// slack is how far a Length may lie from the end of the text it measures:
// senders count the NUL character and the line break after it, or do not.
const slack = 4

// byteRange gives the text that an element with Offset and Length means. It
// ends at its NUL character, which may stand up to slack bytes behind Length.
func byteRange(e *element, data []byte, whole bool) ([]byte, error) {
	offset, err := e.attrInt("Offset")
	if err != nil {
		return nil, err
	}
	length, err := e.attrInt("Length")
	if err != nil {
		return nil, err
	}
	if whole {
		length = max(len(data)-offset, 0)
	}
	if offset > len(data) || length > len(data)-offset+slack {
		return nil, fmt.Errorf("%s of %d bytes at %d does not lie within %d bytes: %w", e.name, length, offset, len(data), cmg.ErrInvalid)
	}
	end := min(offset+length, len(data))
	text, rest := cutText(data[offset:min(end+slack, len(data))])
	if rest == nil {
		text = data[offset:end]
	}
	if len(text)%2 != 0 {
		return nil, fmt.Errorf("%s at %d: an odd number of bytes, %d: %w", e.name, offset, len(text), cmg.ErrInvalid)
	}
	return text, nil
}

// bracedGUID gives a GUID, with braces or without, in braces and upper case;
// nothing stays nothing.
func bracedGUID(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok {
			s = inner
		}
	}
	if len(s) != 36 {
		return "", fmt.Errorf("%.60q is not a GUID: %w", s, cmg.ErrInvalid)
	}
	id, err := cmg.ParseDeviceID(s)
	if err != nil {
		return "", fmt.Errorf("%.60q is not a GUID: %w", s, cmg.ErrInvalid)
	}
	return "{" + id.GUID() + "}", nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
