package content

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencmg/cmg"
)

// links is where a Fetch finds its files, renewed once for all workers when
// the URLs have ended.
type links struct {
	lock  chan struct{} // holds one value while nobody has the lock; ctx ends the waiting for it
	now   Located
	round int // counts renewals
	again func(ctx context.Context) (Located, error)
}

func newLinks(m Located, again func(ctx context.Context) (Located, error)) *links {
	l := &links{lock: make(chan struct{}, 1), now: m, again: again}
	l.lock <- struct{}{}
	return l
}

// url gives the place of file i and the round it is of.
func (l *links) url(ctx context.Context, i int) (url string, round int, err error) {
	select {
	case <-ctx.Done():
		return "", 0, ctx.Err()
	case <-l.lock:
	}
	defer func() { l.lock <- struct{}{} }()
	return l.now.URLs[i], l.round, nil
}

var errNoAgain = errors.New("nobody can ask for fresh locations")

// renew asks for fresh locations, unless somebody has since round.
func (l *links) renew(ctx context.Context, round int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.lock:
	}
	defer func() { l.lock <- struct{}{} }()
	if l.round != round {
		return nil
	}
	if l.again == nil {
		return errNoAgain
	}
	m, err := l.again(ctx)
	if err != nil {
		return fmt.Errorf("ask for fresh locations: %w", err)
	}
	if err := checkLocated(m); err != nil {
		return fmt.Errorf("fresh locations: %w", err)
	}
	was, is := l.now.Manifest, m.Manifest
	if was.Package != is.Package || was.Version != is.Version || !slices.Equal(was.Files, is.Files) {
		return fmt.Errorf("fresh locations are of other files: %w", cmg.ErrConflict)
	}
	l.now, l.round = m, l.round+1
	return nil
}
