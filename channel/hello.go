package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The versions of the protocol that this package speaks.
const (
	minVersion = 1
	maxVersion = 1
)

const helloMagic = "CMGc"

// hello is the first frame each way.
type hello struct {
	min, max   uint16
	features   uint64 // of the sender: featureUpgrade
	credit     uint32 // bytes of body that may be sent on a new stream
	streams    uint32 // how many streams may be open at once
	published  uint64 // outside: the version of the publication it has
	name       string // of the instance or connection point
	connection string // outside: the id it gave this connection
}

func (h hello) append(b []byte) []byte {
	p := append([]byte(nil), helloMagic...)
	p = binary.BigEndian.AppendUint16(p, h.min)
	p = binary.BigEndian.AppendUint16(p, h.max)
	p = binary.BigEndian.AppendUint64(p, h.features)
	p = binary.BigEndian.AppendUint32(p, h.credit)
	p = binary.BigEndian.AppendUint32(p, h.streams)
	p = binary.BigEndian.AppendUint64(p, h.published)
	for _, s := range []string{h.name, h.connection} {
		s = s[:min(len(s), 255)]
		p = append(append(p, byte(len(s))), s...)
	}
	b = appendHeader(b, len(p), frameHello, 0, 0)
	return append(b, p...)
}

var errHello = errors.New("channel: the peer's first frame is not a hello")

func parseHello(p []byte) (h hello, err error) {
	if len(p) < 34 || string(p[:4]) != helloMagic {
		return h, errHello
	}
	h.min, h.max = binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint16(p[6:])
	h.features = binary.BigEndian.Uint64(p[8:])
	h.credit, h.streams = binary.BigEndian.Uint32(p[16:]), binary.BigEndian.Uint32(p[20:])
	h.published = binary.BigEndian.Uint64(p[24:])
	rest := p[32:] // bytes behind the strings are for later versions
	for _, s := range []*string{&h.name, &h.connection} {
		if len(rest) < 1 || len(rest)-1 < int(rest[0]) {
			return h, errHello
		}
		n := 1 + int(rest[0]) // a byte would overflow at 255
		*s, rest = string(rest[1:n]), rest[n:]
	}
	if h.min > h.max || h.credit > maxWindow {
		return h, errHello
	}
	return h, nil
}

// helloTime bounds the exchange of hellos.
const helloTime = 10 * time.Second

// greet exchanges hellos: the inside speaks first, the outside chooses the
// highest version both know.
func greet(c net.Conn, mine hello, outside bool) (theirs hello, err error) {
	if err := c.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return theirs, err
	}
	if !outside {
		if _, err := c.Write(mine.append(nil)); err != nil {
			return theirs, fmt.Errorf("send hello: %w", err)
		}
	}
	if theirs, err = readHello(c); err != nil {
		return theirs, err
	}
	chosen := min(theirs.max, mine.max)
	if chosen < mine.min || chosen < theirs.min {
		return theirs, fmt.Errorf("channel: the peer speaks versions %d to %d, we speak %d to %d", theirs.min, theirs.max, mine.min, mine.max)
	}
	if outside {
		mine.min, mine.max = chosen, chosen
		if _, err := c.Write(mine.append(nil)); err != nil {
			return theirs, fmt.Errorf("send hello: %w", err)
		}
	}
	return theirs, c.SetDeadline(time.Time{})
}

func readHello(c net.Conn) (h hello, err error) {
	var b [frameHeader + 1024]byte
	if _, err := io.ReadFull(c, b[:frameHeader]); err != nil {
		return h, fmt.Errorf("read hello: %w", err)
	}
	f := parseHeader(b[:])
	if f.kind != frameHello || f.stream != 0 || f.length > len(b)-frameHeader {
		return h, errHello
	}
	p := b[frameHeader : frameHeader+f.length]
	if _, err := io.ReadFull(c, p); err != nil {
		return h, fmt.Errorf("read hello: %w", err)
	}
	return parseHello(p)
}
