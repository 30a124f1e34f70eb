package channel

import (
	"errors"
	"io"
	"testing"
)

// TestCrumbs sends a body byte by byte to a reader that does not read: it
// takes little more memory than its bytes.
func TestCrumbs(t *testing.T) {
	out, _ := sessions(t, false, Config{}, Config{Handler: serve(t, func(st *Stream) {
		defer st.Close()
		st.Respond([]byte("h"), nil, false)
		for range 20000 {
			if _, err := st.Write([]byte("x")); err != nil {
				return
			}
		}
		st.WriteEnd(nil)
	})})
	st, err := out.Open([]byte("x"), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for st.held() < 20000 {
		<-st.wake
	}
	st.mu.Lock()
	room := 0
	for _, c := range st.queue {
		room += cap(c.b)
	}
	st.mu.Unlock()
	if room > 2*20000 {
		t.Errorf("20,000 bytes take %d", room)
	}
	if b, err := bodyAfterHead(st); err != nil || len(b) != 20000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestAnswered shows that a request that was answered before its end does not
// look like a whole one to whoever reads it.
func TestAnswered(t *testing.T) {
	read := make(chan error, 1)
	out, _ := sessions(t, false, Config{}, Config{Handler: serve(t, func(st *Stream) {
		defer st.Close()
		st.First()
		st.Respond([]byte("h"), []byte("enough"), true)
		_, err := st.Next()
		if st.Ended() {
			err = io.EOF
		}
		read <- err
	})})
	st, err := out.Open([]byte("x"), []byte("half"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := <-read; !errors.Is(err, errAnswered) {
		t.Errorf("it read as if the message had ended: %v", err)
	}
	for !st.Unwanted() {
		<-st.room
	}
	if b, err := bodyAfterHead(st); string(b) != "enough" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
