package channel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// body reads a whole message behind its head.
func body(st *Stream) ([]byte, error) {
	p, _ := st.First()
	all := append([]byte(nil), p...)
	for {
		p, err := st.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

// echo answers with the request's head and body.
func echo(st *Stream) {
	defer st.Close()
	h, err := st.Head()
	if err != nil {
		return
	}
	head := bytes.Clone(h)
	b, err := body(st)
	if err != nil {
		return
	}
	if len(b) <= MaxInline {
		st.Respond(head, b, true)
		return
	}
	if st.Respond(head, nil, false) == nil {
		st.WriteEnd(b)
	}
}

// exchange sends one message and checks that it comes back.
func exchange(s *Session, head string, b []byte) error {
	first, rest := b[:min(len(b), MaxInline)], b[min(len(b), MaxInline):]
	st, err := s.Open([]byte(head), first, len(rest) == 0)
	if err != nil {
		return err
	}
	defer st.Close()
	if len(rest) > 0 {
		if err := st.WriteEnd(rest); err != nil {
			return err
		}
	}
	h, err := st.Head()
	if err != nil {
		return err
	}
	if string(h) != head {
		return fmt.Errorf("head %q, want %q", h, head)
	}
	got, err := body(st)
	if err != nil {
		return err
	}
	if sha256.Sum256(got) != sha256.Sum256(b) {
		return fmt.Errorf("a body of %d bytes came back as %d others", len(b), len(got))
	}
	return nil
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func TestMessages(t *testing.T) {
	for _, secure := range []bool{false, true} {
		out, _ := sessions(t, secure, Config{}, Config{Handler: serve(t, echo)})
		var wg sync.WaitGroup
		for i, n := range []int{0, 1, 100, MaxInline - 1, MaxInline, MaxInline + 1, baseWindow, baseWindow + 1, 1 << 20, 5<<20 + 3} {
			for range 4 {
				wg.Go(func() {
					if err := exchange(out, fmt.Sprint("head ", i), noise(n)); err != nil {
						t.Errorf("%d bytes: %v", n, err)
					}
				})
			}
		}
		wg.Wait()
		if n := out.InFlight(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	}
}

// TestSlowReader shows that streams nobody reads stall no other.
func TestSlowReader(t *testing.T) {
	out, _ := sessions(t, true, Config{}, Config{Handler: serve(t, func(st *Stream) {
		defer st.Close()
		st.Respond([]byte("h"), nil, false)
		st.WriteEnd(noise(1 << 20))
	})})
	var stalled []*Stream
	for range 20 {
		st, err := out.Open([]byte("slow"), nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Head(); err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, st)
	}
	st, err := out.Open([]byte("quick"), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := bodyAfterHead(st); err != nil || len(b) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	st.Close()
	for _, st := range stalled {
		st.Close()
	}
}

func bodyAfterHead(st *Stream) ([]byte, error) {
	if _, err := st.Head(); err != nil {
		return nil, err
	}
	return body(st)
}

// TestCredit shows that a sender stops at the credit it has, and that a peer
// that does not is cut off.
func TestCredit(t *testing.T) {
	sent := make(chan int, 1)
	out, _ := sessions(t, false, Config{}, Config{Handler: serve(t, func(st *Stream) {
		st.Respond([]byte("h"), nil, false)
		n, _ := st.Write(noise(10 << 20))
		sent <- n
		st.Close()
	})})
	st, err := out.Open([]byte("x"), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Head(); err != nil {
		t.Fatal(err)
	}
	for st.held() < baseWindow-1<<10 {
		<-st.wake
	}
	st.Close()
	if n := <-sent; n > baseWindow {
		t.Errorf("%d bytes were sent on a credit of %d", n, baseWindow)
	}

	a, b := pair(t, false)
	go func() { // a peer that overdraws
		greet(b, hello{min: 1, max: 1, streams: 10}, false)
		f := appendHeader(nil, 2, frameResponse, 0, 1)
		f = append(f, 1, 'h')
		for range 4 {
			f = appendHeader(f, maxPiece, frameData, 0, 1)
			f = append(f, make([]byte, maxPiece)...)
		}
		b.Write(f)
		io.Copy(io.Discard, b)
		b.Close()
	}()
	s, err := Outside(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open([]byte("x"), nil, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, errProtocol) {
		t.Errorf("got %v, want a protocol error", err)
	}
}

func (st *Stream) held() (n int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, c := range st.queue {
		n += len(c.b)
	}
	return n
}

// TestWindowGrows shows that a stream that is read quickly gets a larger
// window, and gives it back.
func TestWindowGrows(t *testing.T) {
	out, _ := sessions(t, false, Config{}, Config{Handler: serve(t, func(st *Stream) {
		defer st.Close()
		st.Respond([]byte("h"), nil, false)
		st.WriteEnd(noise(32 << 20))
	})})
	st, err := out.Open([]byte("x"), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bodyAfterHead(st)
	if err != nil || len(b) != 32<<20 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if st.window <= baseWindow {
		t.Errorf("the window stayed at %d", st.window)
	}
	st.Close()
	if p := out.pool.Load(); p != poolSize {
		t.Errorf("%d bytes of window were not given back", poolSize-p)
	}
}

func TestReset(t *testing.T) {
	got := make(chan error, 1)
	out, _ := sessions(t, false, Config{}, Config{Handler: serve(t, func(st *Stream) {
		h, _ := st.Head()
		switch string(h) {
		case "refuse":
			st.Reset(CodeUnreachable, "no such host")
		case "fail":
			st.Started(true)
			st.Respond([]byte("h"), []byte("part"), false)
			st.Reset(CodeFailed, "origin went away")
		case "early":
			st.Respond([]byte("h"), []byte("enough"), true)
			st.Close()
		case "wait":
			_, err := body(st)
			got <- err
			st.Close()
		}
	})})
	open := func(head string, end bool) *Stream {
		st, err := out.Open([]byte(head), nil, end)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	var e *StreamError
	st := open("refuse", true)
	if _, err := st.Head(); !errors.As(err, &e) || e.Code != CodeUnreachable || !e.Untouched || e.Text != "no such host" {
		t.Errorf("refused: %+v", e)
	}
	st.Close()
	st = open("fail", true)
	if b, err := bodyAfterHead(st); string(b) != "part" || !errors.As(err, &e) || e.Code != CodeFailed || e.Untouched || !e.Started {
		t.Errorf("failed: %q, %+v", b, e)
	}
	st.Close()
	st = open("early", false)
	for {
		if _, err := st.Write(noise(1 << 10)); err != nil {
			if !Stopped(err) {
				t.Errorf("early answer: %v", err)
			}
			break
		}
	}
	if b, err := bodyAfterHead(st); string(b) != "enough" || err != nil {
		t.Errorf("early answer: %q, %v", b, err)
	}
	st.Close()
	st = open("wait", false)
	st.Close()
	if err := <-got; !errors.As(err, &e) || e.Code != CodeCancelled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLost(t *testing.T) {
	a, b := pair(t, false)
	var notified sync.WaitGroup
	notified.Add(1)
	out, _ := run(t, a, b, Config{}, Config{Handler: serve(t, func(st *Stream) {
		st.Started(true)
		st.Respond([]byte("h"), nil, false)
	})})
	st, err := out.Open([]byte("x"), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Head(); err != nil {
		t.Fatal(err)
	}
	st.First()
	st.Notify(nil)
	b.Close()
	var e *StreamError
	if _, err := st.Next(); !errors.As(err, &e) || e.Code != CodeLost || !e.Started {
		t.Errorf("got %+v", err)
	}
	st.Notify(func() { notified.Done() })
	notified.Wait()
	if _, err := out.Open([]byte("x"), nil, true); !errors.As(err, &e) || !e.Untouched {
		t.Errorf("open on a lost session: %v", err)
	}
	if out.Usable() {
		t.Error("a lost session calls itself usable")
	}
	st.Close()
}

// TestDrain shows that what is under way ends, and what was not seen comes
// back untouched.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	out, in := sessions(t, true, Config{}, Config{Handler: serve(t, func(st *Stream) {
		close(entered)
		<-release
		echo(st)
	})})
	st, err := out.Open([]byte("x"), noise(100), true)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	done := make(chan struct{})
	go func() {
		in.Drain(context.Background(), "test")
		close(done)
	}()
	for in.Usable() {
		time.Sleep(time.Millisecond)
	}
	for out.Usable() {
		late, err := out.Open([]byte("late"), nil, true)
		if err != nil {
			break
		}
		var e *StreamError
		if _, err := late.Head(); !errors.As(err, &e) || !e.Untouched {
			t.Fatalf("a stream opened during the drain: %v", err)
		}
		late.Close()
	}
	close(release)
	if b, err := bodyAfterHead(st); err != nil || len(b) != 100 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	st.Close()
	<-done
}
