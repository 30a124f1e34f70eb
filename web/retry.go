package web

import (
	"math/rand/v2"
	"strconv"
)

// RetryAfterHeader names the header (RFC 9110, section 10.2.3).
const RetryAfterHeader = "Retry-After"

// RetryAfter is what a caller is asked to wait that cannot be served now, in
// seconds: 30, give or take a half, so that those refused together do not
// come back together.
func RetryAfter() string { return strconv.Itoa(15 + rand.IntN(31)) }
