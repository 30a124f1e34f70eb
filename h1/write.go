package h1

import "strconv"

// AppendRequest appends the text of a request to b: target takes the place
// of r.Target, host that of r.Host. The body's framing follows r.Length.
// The request asks for a connection that stays open.
func AppendRequest(b []byte, r *Request, target, host []byte) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Fields)
	if len(r.Upgrade) > 0 {
		b = appendUpgrade(b, r.Upgrade)
	}
	switch {
	case r.Length == Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Length > 0, sendsLength(r.Method):
		b = appendLength(b, r.Length)
	}
	return append(b, "\r\n"...)
}

// sendsLength says that a request with this method and no body says so:
// servers wait for, or refuse, a POST that says nothing (RFC 9110, section
// 8.6). Every method that is not plainly without a body is treated so.
func sendsLength(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "PROPFIND":
		return false
	}
	return true
}

// A Framing says how a response is framed towards one client.
type Framing struct {
	Method []byte // of the request
	HTTP10 bool   // the client speaks HTTP/1.0: no chunks
	Close  bool   // the connection is closed after this response
}

// AppendResponse appends the text of a response head to b and says whether
// the body that follows has to be written in chunks (AppendChunk). A body of
// unknown length to an HTTP/1.0 client ends with the connection: set Close.
func AppendResponse(b []byte, r *Response, f Framing) (out []byte, chunked bool) {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = append(b, r.Reason...)
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Fields)
	if r.Status == 101 { // the connection is no more HTTP's: nothing to say of it
		return append(appendUpgrade(b, r.Upgrade), "\r\n"...), false
	}
	switch {
	case r.Status < 200 || r.Status == 204: // no length at all (RFC 9110, section 8.6)
	case string(f.Method) == "HEAD" || r.Status == 304:
		if r.Length > 0 {
			b = appendLength(b, r.Length)
		}
	case r.Length >= 0:
		b = appendLength(b, r.Length)
	case !f.HTTP10:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		chunked = true
	}
	switch {
	case f.Close:
		b = append(b, "Connection: close\r\n"...)
	case f.HTTP10: // it asked, and without this would wait for the end
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...), chunked
}

func appendFields(b []byte, fs []Field) []byte {
	for i := range fs {
		b = append(b, fs[i].Name...)
		b = append(b, ": "...)
		b = append(b, fs[i].Value...)
		b = append(b, "\r\n"...)
	}
	return b
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// AppendChunk appends p as one chunk; p must not be empty.
func AppendChunk(b, p []byte) []byte {
	b = strconv.AppendUint(b, uint64(len(p)), 16)
	b = append(b, "\r\n"...)
	b = append(b, p...)
	return append(b, "\r\n"...)
}

// LastChunk ends a chunked body.
const LastChunk = "0\r\n\r\n"

func appendUpgrade(b, protocols []byte) []byte {
	b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
	b = append(b, protocols...)
	return append(b, "\r\n"...)
}
