package channel

import "slices"

const (
	// bulkWater is how many bytes of bodies are pending at most while there
	// are others to come: little, for what is pending is what a stream's next
	// piece waits for.
	bulkWater = 4 * quantum
	// quantum is what a stream may add in one turn: one piece of the largest
	// size, or as much in smaller ones.
	quantum = maxPiece + frameHeader
)

// A share is one sender's part in what a connection sends of bodies. Those
// who wait are served in the order of start-time fair queueing (Goyal, Vin
// and Cheng, 1996): the connection has a virtual time, in bytes; a share is
// due when what it has sent would have been sent if all had the same part,
// and whoever is due first goes first. So as many bytes go to each, whatever
// the size of its pieces, and who sent nothing for a while has saved nothing.
//
// Its fields belong to the writer's lock.
type share struct {
	bell  chan struct{} // rung when it is its turn; may be rung once too often
	waits bool
	due   int64  // virtual time at which the next frame may go
	left  int    // bytes that it may still add in this turn
	round uint64 // in which left is good
}

// sendBody appends one frame of a body when it is its stream's turn, and sees
// to it that it is written. One goroutine at a time may use a share.
func (w *writer) sendBody(sh *share, kind frameType, flags byte, stream uint32, parts ...[]byte) error {
	n := frameHeader
	for _, p := range parts {
		n += len(p)
	}
	w.mu.Lock()
	sh.due = max(sh.due, w.virtual)
	if first := len(w.turns) == 0 || sh.due < w.turns[0].due; w.err == nil && !w.mayAdd(sh, n) && !(first && w.fits(n)) {
		w.await(sh)
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	if w.mayAdd(sh, n) {
		sh.left -= n
		w.reserved -= n
	}
	if len(w.turns) == 0 {
		w.virtual = max(w.virtual, sh.due)
	}
	sh.due += int64(n)
	w.bulk = appendFrame(w.bulk, kind, flags, stream, parts...)
	w.drain()
	return nil
}

// mayAdd says that the share has its turn, and n bytes of it left.
func (w *writer) mayAdd(sh *share, n int) bool { return sh.round == w.round && sh.left >= n }

// await waits for the share's turn. It is called with mu held.
func (w *writer) await(sh *share) {
	sh.waits = true
	at, _ := slices.BinarySearchFunc(w.turns, sh, func(x, sh *share) int {
		if x.due <= sh.due { // behind those that are due at the same time
			return -1
		}
		return 1
	})
	w.turns = slices.Insert(w.turns, at, sh)
	for sh.waits && w.err == nil {
		w.mu.Unlock()
		<-sh.bell
		w.mu.Lock()
	}
}

func (w *writer) fits(n int) bool {
	pending := len(w.bulk) + w.reserved
	return pending == 0 || pending+n <= bulkWater
}

// nextRound takes what is pending, to be written, and gives turns to those
// who are due first. What others did not use of theirs is gone. It is called
// with mu held.
func (w *writer) nextRound() (b []byte) {
	b = w.bulk
	w.bulk, w.spare[1] = w.spare[1][:0], nil
	w.reserved = 0
	w.round++
	if len(w.turns) > 0 {
		w.virtual = max(w.virtual, w.turns[0].due)
	}
	w.admit()
	return b
}

func (w *writer) admit() {
	for len(w.turns) > 0 && (w.err != nil || w.fits(quantum)) {
		sh := w.turns[0]
		w.turns[0] = nil
		w.turns = w.turns[1:]
		sh.waits, sh.left, sh.round = false, quantum, w.round
		w.reserved += quantum
		signal(sh.bell)
	}
	if len(w.turns) == 0 {
		w.turns = nil
	}
}

// behind appends one small frame behind everything that is pending, without
// waiting.
func (w *writer) behind(kind frameType, stream uint32, parts ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.bulk = appendFrame(w.bulk, kind, 0, stream, parts...)
		w.rouse()
	}
}
