package h1

// Begin makes r the head of a request that was not read from HTTP/1.1 text,
// such as one of HTTP/2, under the same rules. The body's length is length.
func (r *Request) Begin(method, host, target string, length int64) error {
	return r.BeginViews([]byte(method), []byte(host), []byte(target), length)
}

// BeginViews is Begin without copies: r keeps what it is given.
func (r *Request) BeginViews(method, host, target []byte, length int64) error {
	r.Reset()
	r.Method = method
	if len(method) == 0 || len(method) > maxMethod || !all(r.Method, isToken) {
		return bad("the method is not a token of at most %d characters", maxMethod)
	}
	if len(target) > MaxTarget {
		return &Error{Status: 414, Why: "the target is longer than 16 KiB"}
	}
	if len(target) == 0 {
		return bad("there is no target")
	}
	if err := r.target(target); err != nil {
		return err
	}
	if r.Host != nil {
		return bad("the target is not a path")
	}
	r.Host = host
	if len(host) == 0 || !goodHost(r.Host) {
		return bad("Host is not a host name with an optional port")
	}
	r.Length = length
	return nil
}

// AddPeer appends a field that a peer sent, unless it frames the message,
// goes with one hop only, or is one a client may not set. A name is spelt as
// HTTP/1.1 servers are used to, whatever the peer's letter case; r keeps what
// it is given.
func (r *Request) AddPeer(name, value []byte) error {
	if len(name) == 0 || len(name) > maxName || !all(name, isToken) || !all(value, isValue) {
		return bad("a field has a character that may not stand there")
	}
	if len(r.Fields) == MaxFields {
		return &Error{Status: 431, Why: "more than 128 fields"}
	}
	id, _ := lookup(name)
	if hop(id) || lookalike(name) || reserved(name) || forwarded(name, id) {
		return nil
	}
	if id != 0 {
		r.AddKnown(id, value)
		return nil
	}
	capitalise(name)
	r.Fields = append(r.Fields, Field{Name: name, Value: value})
	return nil
}

// capitalise writes the first letter of each word large, the others small.
func capitalise(name []byte) {
	first := true
	for i, c := range name {
		switch {
		case first && c >= 'a' && c <= 'z':
			name[i] = c - 'a' + 'A'
		case !first && c >= 'A' && c <= 'Z':
			name[i] = c - 'A' + 'a'
		}
		first = c == '-'
	}
}

// Begin makes r the head of a response that was not read from HTTP/1.1 text.
// The body's length is length.
func (r *Response) Begin(status int, length int64) error {
	r.Reset()
	if status < 100 || status > 599 {
		return bad("the status is not a number from 100 to 599")
	}
	r.Status, r.Length = status, length
	return nil
}

// AddPeer appends a field that a server sent, unless it frames the message or
// goes with one hop only. A name that is known is spelt as HTTP/1.1 does.
func (r *Response) AddPeer(name, value string) error {
	n, v := []byte(name), []byte(value)
	if len(n) == 0 || len(n) > maxName || !all(n, isToken) || !all(v, isValue) {
		return bad("a field has a character that may not stand there")
	}
	if len(r.Fields) == MaxFields {
		return &Error{Status: 431, Why: "more than 128 fields"}
	}
	id, _ := lookup(n)
	switch {
	case hop(id):
	case id != 0:
		r.AddKnown(id, v)
	default:
		r.Fields = append(r.Fields, Field{Name: n, Value: v})
	}
	return nil
}
