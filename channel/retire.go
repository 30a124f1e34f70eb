package channel

import (
	"context"
	"encoding/binary"
	"math"
	"time"
)

// retireTime bounds the wait for the outside to have read that it is to open
// no more streams.
const retireTime = 10 * time.Second

// Retire ends a session that another has taken the place of, so that no
// stream is refused: the outside is first told to open no more, and whatever
// was on its way until it has read this is still served. Then it drains. It
// closes the session when the last stream has ended, or ctx. Inside only.
func (s *Session) Retire(ctx context.Context, why string) {
	s.w.control(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(nil, math.MaxUint32), []byte(cut(why)))
	wait, cancel := context.WithTimeout(ctx, retireTime)
	s.await(wait)
	cancel()
	s.Drain(ctx, why)
}

// Ended is closed when the session has ended.
func (s *Session) Ended() <-chan struct{} { return s.ended }
