package web

import (
	"net/http"
	"time"
)

// Waits makes the HTTP/2 settings of a server at which thousands of requests
// wait: a connection point brings many of them on one connection. Use it
// where callers are proven before they can open any.
func Waits() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          1000,
		MaxReceiveBufferPerConnection: 4<<20 - 1, // all streams' bodies share it
		SendPingTimeout:               30 * time.Second,
		PingTimeout:                   15 * time.Second,
		WriteByteTimeout:              time.Minute,
	}
}
