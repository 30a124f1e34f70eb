package h1

// A NameID stands for a field name that this package or its users have to
// know, or that is common enough to be worth one byte in a compact head.
// The numbers are part of the channel's protocol: append, never renumber.
type NameID uint8

// The names that are asked for by id.
const (
	Authorization     NameID = 1
	Connection        NameID = 2
	ContentLength     NameID = 3
	ContentType       NameID = 4
	Expect            NameID = 5
	Host              NameID = 6
	KeepAlive         NameID = 7
	ProxyAuthenticate NameID = 8
	ProxyAuthorize    NameID = 9
	ProxyConnection   NameID = 10
	TE                NameID = 11
	Trailer           NameID = 12
	TransferEncoding  NameID = 13
	Upgrade           NameID = 14
	Forwarded         NameID = 15
	XForwardedFor     NameID = 16
	XForwardedHost    NameID = 17
	XForwardedProto   NameID = 18
	XRealIP           NameID = 19
	Date              NameID = 20
	Server            NameID = 21
	TraceParent       NameID = 22
	ProxyAuthInfo     NameID = 23
	Caller            NameID = 76
	RequestID         NameID = 77
)

var names = [...]string{
	Authorization: "Authorization", Connection: "Connection", ContentLength: "Content-Length", ContentType: "Content-Type",
	Expect: "Expect", Host: "Host", KeepAlive: "Keep-Alive", ProxyAuthenticate: "Proxy-Authenticate",
	ProxyAuthorize: "Proxy-Authorization", ProxyConnection: "Proxy-Connection", TE: "TE", Trailer: "Trailer",
	TransferEncoding: "Transfer-Encoding", Upgrade: "Upgrade", Forwarded: "Forwarded", XForwardedFor: "X-Forwarded-For",
	XForwardedHost: "X-Forwarded-Host", XForwardedProto: "X-Forwarded-Proto", XRealIP: "X-Real-IP", Date: "Date",
	Server: "Server", TraceParent: "traceparent", ProxyAuthInfo: "Proxy-Authentication-Info",
	24: "Accept", 25: "Accept-Encoding", 26: "Accept-Language", 27: "Accept-Ranges", 28: "Allow", 29: "Cache-Control",
	30: "Content-Encoding", 31: "Content-Language", 32: "Content-Location", 33: "Content-Range", 34: "Content-Disposition",
	35: "Cookie", 36: "ETag", 37: "Expires", 38: "If-Match", 39: "If-Modified-Since", 40: "If-None-Match", 41: "If-Range",
	42: "If-Unmodified-Since", 43: "Last-Modified", 44: "Location", 45: "Origin", 46: "Pragma", 47: "Range", 48: "Referer",
	49: "Retry-After", 50: "Set-Cookie", 51: "SOAPAction", 52: "User-Agent", 53: "Vary", 54: "Via", 55: "WWW-Authenticate",
	56: "CCMClientID", 57: "CCMClientIDSignature", 58: "CCMClientTimestamp", 59: "CCMClientTimestampsSignature",
	60: "CCMClientTimestampSignature", 61: "ClientToken", 62: "ClientTokenSignature", 63: "BITS-Packet-Type",
	64: "BITS-Session-Id", 65: "BITS-Supported-Protocols", 66: "BITS-Protocol", 67: "BITS-Received-Content-Range",
	68: "BITS-Error-Code", 69: "BITS-Error-Context", 70: "Content-Name", 71: "Depth", 72: "DAV", 73: "MS-CV",
	74: "X-AspNet-Version", 75: "X-Powered-By", 76: "CMG-Caller", 77: "CMG-Request-Id", 78: "CMG-Refusal",
}

// byLength finds a name's candidates by its length.
var byLength [64][]NameID

func init() {
	for id := 1; id < len(names); id++ {
		n := len(names[id])
		byLength[n] = append(byLength[n], NameID(id))
	}
}

// lookup tells what a name is known as, and whether it is spelt exactly so.
func lookup(name []byte) (NameID, bool) {
	if len(name) >= len(byLength) {
		return 0, false
	}
	for _, id := range byLength[len(name)] {
		known := names[id]
		if known[0]|0x20 != name[0]|0x20 {
			continue
		}
		if string(name) == known {
			return id, true
		}
		if equalFold(name, known) {
			return id, false
		}
	}
	return 0, false
}

// equalFold compares a field name with a known one, which are both ASCII and
// of one length, without letter case.
func equalFold(a []byte, b string) bool {
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// reserved says that a name is one of ours, CMG-…, or looks so to a server
// that takes underscores for hyphens. Such fields are taken from whatever a
// client sends.
func reserved(name []byte) bool {
	return len(name) > 3 && name[0]|0x20 == 'c' && name[1]|0x20 == 'm' && name[2]|0x20 == 'g' && (name[3] == '-' || name[3] == '_')
}

// lookalike says that a name looks as one that frames a message to a server
// that takes underscores for hyphens.
func lookalike(name []byte) bool {
	switch len(name) {
	case len("Content_Length"):
		return name[7] == '_' && hasFold(name, "content_length")
	case len("Transfer_Encoding"):
		return name[8] == '_' && hasFold(name, "transfer_encoding")
	}
	return false
}

// forwarded says that a name tells of hops before us; a client's word on
// that is not passed on.
func forwarded(name []byte, id NameID) bool {
	switch id {
	case Forwarded, XForwardedFor, XForwardedHost, XForwardedProto, XRealIP:
		return true
	}
	return len(name) > 10 && name[0]|0x20 == 'x' && hasFold(name, "x-forwarded") || len(name) > 10 && hasFold(name, "x_forwarded")
}

func hasFold(name []byte, prefix string) bool {
	return len(name) >= len(prefix) && equalFold(name[:len(prefix)], prefix)
}

// Character classes of RFC 9110, section 5.6.2, and RFC 3986.
const (
	isToken = 1 << iota
	isValue // may stand in a field value: HTAB, SP, VCHAR, obs-text
	isPath  // may stand in a path as sent
	isQuery // may stand in a query as sent
)

var class = func() (t [256]byte) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= isValue | isPath | isQuery
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			t[c] |= isToken
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	for _, c := range "\"<>\\`#" {
		t[c] &^= isPath
	}
	t['#'] &^= isQuery
	t[' '] |= isValue
	t['\t'] |= isValue
	for c := 0x80; c < 0x100; c++ {
		t[c] |= isValue
	}
	return t
}()

func all(b []byte, mask byte) bool {
	for _, c := range b {
		if class[c]&mask == 0 {
			return false
		}
	}
	return true
}
