package gateway

import "strconv"

// Numbers of fields that every unpacker knows (RFC 7541, appendix A).
const (
	packedStatus = 8
	packedLength = 28
	packedDate   = 33
)

var packedStatuses = map[int]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

var packedNames = map[string]byte{
	"accept-charset": 15, "accept-encoding": 16, "accept-language": 17, "accept-ranges": 18, "accept": 19, "access-control-allow-origin": 20,
	"age": 21, "allow": 22, "authorization": 23, "cache-control": 24, "content-disposition": 25, "content-encoding": 26,
	"content-language": 27, "content-length": packedLength, "content-location": 29, "content-range": 30, "content-type": 31, "cookie": 32,
	"date": packedDate, "etag": 34, "expect": 35, "expires": 36, "from": 37, "host": 38, "if-match": 39, "if-modified-since": 40,
	"if-none-match": 41, "if-range": 42, "if-unmodified-since": 43, "last-modified": 44, "link": 45, "location": 46,
	"max-forwards": 47, "proxy-authenticate": 48, "proxy-authorization": 49, "range": 50, "referer": 51, "refresh": 52,
	"retry-after": 53, "server": 54, "set-cookie": 55, "strict-transport-security": 56, "transfer-encoding": 57, "user-agent": 58,
	"vary": 59, "via": 60, "www-authenticate": 61,
}

func (c *h2Conn) appendStatus(status int) {
	if n := packedStatuses[status]; n > 0 {
		c.out = append(c.out, 0x80|n)
		return
	}
	var digits [20]byte
	c.out = appendIndexed(c.out, packedStatus, strconv.AppendInt(digits[:0], int64(status), 10))
}

// appendField packs a field that no table is to keep. Names are in small
// letters in HTTP/2.
func appendField(b, name, value []byte) []byte {
	at := len(b)
	b = append(b, 0)
	b = appendInteger(b, 0, 7, len(name))
	begin := len(b)
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	if n := packedNames[string(b[begin:])]; n > 0 {
		return appendIndexed(b[:at], n, value)
	}
	return append(appendInteger(b, 0, 7, len(value)), value...)
}

// appendIndexed packs a field whose name has a number.
func appendIndexed(b []byte, name byte, value []byte) []byte {
	b = appendInteger(b, 0, 4, int(name))
	return append(appendInteger(b, 0, 7, len(value)), value...)
}

// appendInteger packs n behind the bits of first that a prefix of so many bits
// leaves (RFC 7541, section 5.1).
func appendInteger(b []byte, first byte, prefix, n int) []byte {
	limit := 1<<prefix - 1
	if n < limit {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
