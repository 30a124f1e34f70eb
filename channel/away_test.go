package channel

import (
	"bytes"
	"testing"
	"time"
)

// TestAway shows that the outside can ask for another connection and use this
// one all the same.
func TestAway(t *testing.T) {
	handled := make(chan *Stream, 1)
	out, in := sessions(t, true, Config{}, Config{Handler: func(st *Stream) { handled <- st }})
	select {
	case <-in.Away():
		t.Fatal("away before it was said")
	default:
	}
	out.SendAway("another process takes over")
	out.SendAway("and again")
	select {
	case <-in.Away():
	case <-time.After(10 * time.Second):
		t.Fatal("it was not heard")
	}
	if !out.Usable() {
		t.Error("the outside may not use it any more")
	}
}

// TestKeys sends secrets, and shows their limits.
func TestKeys(t *testing.T) {
	got := make(chan []byte, 1)
	out, in := sessions(t, true, Config{Keys: func(doc []byte) { got <- bytes.Clone(doc) }}, Config{})
	doc := noise(maxKeys)
	if err := in.SendKeys(doc); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, doc) {
		t.Errorf("%d bytes arrived, and others", len(b))
	}
	if err := in.SendKeys(append(doc, 0)); err == nil {
		t.Error("more than the limit was sent")
	}
	in.w.send(frameKeys, flagEnd, 0, nil, append(doc, 0))
	select {
	case <-out.Ended():
	case <-time.After(10 * time.Second):
		t.Error("more than the limit was taken")
	}
	out, in = sessions(t, true, Config{}, Config{})
	out.w.send(frameKeys, flagEnd, 0, nil, []byte("x"))
	select {
	case <-in.Ended():
	case <-time.After(10 * time.Second):
		t.Error("the inside took keys")
	}
}
