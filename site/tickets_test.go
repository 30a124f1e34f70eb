package site

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// TestTicketSecrets follows the secrets for three days: there is always one
// with which tickets are made, everybody knew it before, it is taken for a
// day after its turn and then it is gone from the file.
func TestTicketSecrets(t *testing.T) {
	s, now := open(t)
	known := map[string]time.Time{} // when each was seen first
	var first cmg.TicketSecret
	for begin := *now; now.Sub(begin) < 72*time.Hour; *now = now.Add(5 * time.Minute) {
		got, err := s.TicketSecrets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
		var making cmg.TicketSecret
		for _, k := range got.Secrets {
			if _, ok := known[k.ID]; !ok {
				known[k.ID] = *now
			}
			if !now.Before(k.Until) {
				t.Fatalf("%v: %s ended %v", now, k.ID, k.Until)
			}
			if !now.Before(k.From) && k.From.After(making.From) {
				making = k
			}
		}
		switch {
		case making.ID == "":
			t.Fatalf("%v: none to make tickets with: %v", now, got)
		case now.Sub(begin) > time.Hour && now.Sub(known[making.ID]) < 10*time.Minute:
			t.Fatalf("%v: %s is in use and was not known before", now, making.ID)
		case now.Sub(making.From) > 13*time.Hour:
			t.Fatalf("%v: still that of %v", now, making.From)
		}
		if first.ID == "" {
			first = making
		}
	}
	if len(known) < 6 || len(known) > 7 {
		t.Errorf("%d secrets in three days", len(known))
	}
	all, err := list(t.Context(), s.read, scanTicket, qTickets)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if k.ID == first.ID || bytes.Equal(k.Secret, first.Secret) {
			t.Error("the first one is still there")
		}
	}
}

// TestTicketSecretsAtOnce has many ask at once for what is not there yet.
func TestTicketSecretsAtOnce(t *testing.T) {
	s, _ := open(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := s.TicketSecrets(t.Context())
			if err != nil || len(got.Secrets) != 1 {
				t.Errorf("%v, %v", got, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[got.Secrets[0].ID] = true
		})
	}
	all.Wait()
	if len(seen) != 1 {
		t.Errorf("%d different ones", len(seen))
	}
	got, _ := s.TicketSecrets(t.Context())
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); bytes.Contains([]byte(text), got.Secrets[0].Secret) || len(text) > 2000 {
		t.Error("a secret prints")
	}
}
