// Package channel carries many HTTP messages over few connections that the
// inside opened to the outside.
//
// The outside (a gateway) accepts a connection, calls [Outside] and opens a
// [Stream] for each request with [Session.Open]: a validated head and a body
// go in, [Stream.Head] and [Stream.Next] give the response. The inside (a
// connection point) dials, calls [Inside] and is handed each stream by its
// [Config].Handler, which answers with [Stream.Respond]. Heads are opaque
// bytes here: the compact form of package h1. Frames, credit and liveness
// stay private; PROTOCOL.md beside this file specifies every byte.
//
// What holds whatever the peer does: the memory a session can be made to use
// is bounded; a stream whose reader is slow stalls no other; a peer that is
// silent for DeadAfter, or takes nothing for as long, is given up; and each
// stream ends exactly once, with its message or with a [*StreamError] that
// says whether the inside can have acted on it.
package channel
