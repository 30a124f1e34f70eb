package channel

import "sync"

// bells are the channels of a stream. They are used again: whoever still
// rings one for a stream that has ended wakes another for nothing, which
// every waiting loop here bears.
type bells struct{ wake, room, turn chan struct{} }

var bellPool = sync.Pool{New: func() any {
	return &bells{make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)}
}}

func quiet(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
