package channel

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// TestDrainUnderLoad drains while streams are opened without a pause: each is
// answered, or certainly was not handed on. None is in doubt.
func TestDrainUnderLoad(t *testing.T) {
	for range 20 {
		out, in := sessions(t, true, Config{}, Config{Handler: serve(t, echo)})
		begun := make(chan bool, 1)
		var openers sync.WaitGroup
		for range 8 {
			openers.Go(func() {
				for {
					err := exchange(out, "head", noise(300))
					select {
					case begun <- true:
					default:
					}
					var e *StreamError
					if err == nil {
						continue
					}
					if !errors.As(err, &e) || !e.Untouched {
						t.Errorf("in doubt: %v", err)
					}
					if !out.Usable() {
						return
					}
				}
			})
		}
		<-begun
		in.Drain(context.Background(), "test")
		openers.Wait()
	}
}
