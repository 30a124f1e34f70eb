package bits

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// TestRestart has the process end at every place where it matters.
func TestRestart(t *testing.T) {
	p := newPlace(t)
	file := noise(3000)
	s := p.begin()
	p.restart()
	wants(t, p.fragment(s, 0, file[:1000], 3000), 200, "1000", "")
	p.restart()
	wants(t, p.fragment(s, 2000, file[2000:], 3000), 416, "1000", "0x0")
	// Bytes that no record speaks of are written again.
	data := filepath.Join(p.cfg.Dir, key(s)+".data")
	f, err := os.OpenFile(data, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("these were never acknowledged")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	p.restart()
	wants(t, p.fragment(s, 1000, file[1000:], 3000), 200, "3000", "")
	p.mu.Lock()
	p.fail = fmt.Errorf("the database is away: %w", cmg.ErrUnavailable)
	p.mu.Unlock()
	r := p.send(CloseSession, s, nil)
	wants(t, r, 503, "", ResultFailed.String())
	if r.Header.Get(HeaderErrorContext) != ContextApplication {
		t.Errorf("context %q", r.Header.Get(HeaderErrorContext))
	}
	p.restart()
	p.mu.Lock()
	p.fail = nil
	p.mu.Unlock()
	wants(t, p.send(CloseSession, s, nil), 200, "", "")
	p.got(s, "", file)
	p.restart()
	wants(t, p.send(CloseSession, s, nil), 200, "", "")

	// The file was taken, and the process ended before it said so.
	s = p.begin()
	wants(t, p.fragment(s, 0, file, 3000), 200, "3000", "")
	u := Upload{ID: key(s), Name: "{1}", Size: 3000, SHA256: sha256.Sum256(file), Path: filepath.Join(p.cfg.Dir, key(s)+".data")}
	if err := p.deliver(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	p.restart()
	wants(t, p.send(CloseSession, s, nil), 200, "", "")
	p.got(s, "", file)

	// What cannot be used is put aside, and begins again.
	s = p.begin()
	wants(t, p.fragment(s, 0, file[:10], 3000), 200, "10", "")
	if err := os.Truncate(filepath.Join(p.cfg.Dir, key(s)+".data"), 5); err != nil {
		t.Fatal(err)
	}
	other := p.begin()
	if err := os.WriteFile(filepath.Join(p.cfg.Dir, key(other)+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.restart()
	for _, id := range []string{s, other} {
		wants(t, p.fragment(id, 10, file[10:20], 3000), 500, "", "0x8020001F")
	}
}

// TestManyClosed: what is remembered of closed sessions does not grow for
// ever, also over a restart.
func TestManyClosed(t *testing.T) {
	p := newPlace(t)
	var all []string
	for range maxClosed + 10 {
		s := p.begin()
		wants(t, p.send(CloseSession, s, nil), 200, "", "")
		if all = append(all, s); len(all) == maxClosed/2 {
			p.restart()
		}
	}
	left, err := os.ReadDir(p.cfg.Dir)
	if err != nil || len(left) != maxClosed {
		t.Errorf("%d files, %v", len(left), err)
	}
	wants(t, p.send(CloseSession, all[9], nil), 500, "", "0x8020001F")
	wants(t, p.send(CloseSession, all[10], nil), 200, "", "")
}

// TestSuccessor has two processes on one folder, as they are while one takes
// the other's place: whoever is asked knows what was done by the other.
func TestSuccessor(t *testing.T) {
	p := newPlace(t)
	old := p.current()
	p.restart()
	young := p.current()
	turn := 0
	next := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		turn++
		p.server = []*Server{old, young}[turn%2]
	}
	file := noise(4000)
	next()
	next()
	s := p.begin() // by the old one
	next()
	for i := 0; i < 4000; i += 1000 {
		wants(t, p.fragment(s, i, file[i:i+1000], 4000), 200, fmt.Sprint(i+1000), "")
		next()
	}
	for range 2 {
		wants(t, p.send(CloseSession, s, nil), 200, "", "")
		next()
	}
	p.got(s, "", file)
	if p.calls != 1 || old.Status() != (Status{}) || young.Status() != (Status{}) {
		t.Errorf("%d deliveries, under way %+v, %+v", p.calls, old.Status(), young.Status())
	}
	s = p.begin()
	wants(t, p.fragment(s, 0, file[:1000], 4000), 200, "1000", "")
	next()
	wants(t, p.fragment(s, 1000, file[1000:2000], 4000), 200, "2000", "")
	next()
	wants(t, p.send(CancelSession, s, nil), 200, "", "")
	next()
	wants(t, p.fragment(s, 2000, file[2000:], 4000), 500, "", "0x8020001F")
	wants(t, p.send(CancelSession, s, nil), 200, "", "")
	if old.Status() != (Status{}) || young.Status() != (Status{}) {
		t.Errorf("under way %+v, %+v", old.Status(), young.Status())
	}
}

// TestSecondRequest has a client come back while its first request still
// hangs: the second one gets the session.
func TestSecondRequest(t *testing.T) {
	p := newPlace(t)
	file := noise(2000)
	s := p.begin()
	body, hang := io.Pipe()
	r, err := http.NewRequest(Method, p.url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 2000
	r.Header = packetHeader(HeaderPacketType, string(Fragment), HeaderSession, s, "Content-Range", "bytes 0-1999/2000")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := p.client.Do(r); err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := hang.Write(file[:700]); err != nil {
		t.Fatal(err)
	}
	// The first request has the turn as soon as its head was read.
	u := p.current().find(s, Sender{Name: "{1}"})
	for {
		u.mu.Lock()
		busy := u.interrupt != nil
		u.mu.Unlock()
		if busy {
			break
		}
		time.Sleep(time.Millisecond)
	}
	resp := p.fragment(s, 0, file[:1000], 2000)
	wants(t, resp, 200, "1000", "")
	hang.CloseWithError(errors.New("given up"))
	<-done
	wants(t, p.fragment(s, 1000, file[1000:], 2000), 200, "2000", "")
	wants(t, p.send(CloseSession, s, nil), 200, "", "")
	p.got(s, "", file)
}

func TestConfig(t *testing.T) {
	deliver := func(context.Context, Upload) error { return nil }
	for name, c := range map[string]Config{
		"no folder":   {Deliver: deliver},
		"no taker":    {Dir: t.TempDir()},
		"negative":    {Dir: t.TempDir(), Deliver: deliver, MaxSize: -1},
		"no sessions": {Dir: t.TempDir(), Deliver: deliver, MaxSessions: -1},
		"no time":     {Dir: t.TempDir(), Deliver: deliver, Idle: time.Millisecond},
	} {
		if _, err := NewServer(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(Config{Dir: file, Deliver: deliver}); err == nil {
		t.Error("a file passed for a folder")
	}
}
