package ccm

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"

	"github.com/opencmg/cmg"
)

// isZlib looks at the two bytes in front of a zlib stream (RFC 1950, 2.2). No
// XML text in UTF-16 begins like that.
func isZlib(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && b[0]>>4 <= 7 && (uint(b[0])<<8|uint(b[1]))%31 == 0
}

// inflate gives b decompressed where it is compressed; declared says that it
// has to be. More than limit bytes are refused before they are held.
func inflate(b []byte, declared bool, limit int64) ([]byte, error) {
	if !isZlib(b) {
		if declared && len(b) > 0 {
			return nil, fmt.Errorf("it is said to be a zlib stream and is none: %w", cmg.ErrInvalid)
		}
		return b, nil
	}
	src := bytes.NewReader(b)
	z, err := zlib.NewReader(src)
	if err != nil {
		return nil, fmt.Errorf("decompress: %v: %w", err, cmg.ErrInvalid)
	}
	out, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %v: %w", err, cmg.ErrInvalid)
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("decompress: more than %d bytes: %w", limit, cmg.ErrTooLarge)
	}
	if src.Len() > slack {
		return nil, fmt.Errorf("decompress: %d bytes after the stream: %w", src.Len(), cmg.ErrInvalid)
	}
	return out, nil
}

func deflate(b []byte) []byte {
	var buf bytes.Buffer
	z := zlib.NewWriter(&buf)
	z.Write(b) // a bytes.Buffer does not fail
	z.Close()
	return buf.Bytes()
}
