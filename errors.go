package cmg

import (
	"errors"
	"fmt"
	"net/http"
)

// The kinds of error that keep their meaning across a wire. Ask with
// errors.Is; wrap with %w. Anything else is a fault of the program or of the
// machine beneath it and is answered with 500.
var (
	ErrInvalid         = errors.New("invalid")           // 400: the request cannot be understood
	ErrUnauthenticated = errors.New("not authenticated") // 401: no proof, or a proof that does not hold
	ErrForbidden       = errors.New("forbidden")         // 403: known, and not allowed
	ErrNotFound        = errors.New("not found")         // 404
	ErrConflict        = errors.New("conflict")          // 409: the state does not permit it
	ErrTooLarge        = errors.New("too large")         // 413: over a stated limit
	ErrUnavailable     = errors.New("unavailable")       // 503: try again later
)

var kinds = []struct {
	err    error
	status int
}{
	{ErrInvalid, http.StatusBadRequest},
	{ErrUnauthenticated, http.StatusUnauthorized},
	{ErrForbidden, http.StatusForbidden},
	{ErrNotFound, http.StatusNotFound},
	{ErrConflict, http.StatusConflict},
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{ErrUnavailable, http.StatusServiceUnavailable},
}

// StatusOf gives the HTTP status of err's kind: that of a Refusal in its
// chain, else that of the first kind it is, else 500.
func StatusOf(err error) int {
	var r *Refusal
	if errors.As(err, &r) && r.Status != 0 {
		return r.Status
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.status
		}
	}
	return http.StatusInternalServerError
}

// KindOf gives the error kind that stands for an HTTP status, or nil where
// none does.
func KindOf(status int) error {
	for _, k := range kinds {
		if k.status == status {
			return k.err
		}
	}
	return nil
}

// A Refusal says no with a reason that may be shown to the caller. Its code
// stands in the status line and in docs/refusals.md.
type Refusal struct {
	Status int    // HTTP status
	Code   string // such as CMGService_Invalid_Token: letters, digits and underscores
	Why    string // one short sentence without secrets, safe to show to the caller
	Err    error  // the inner cause, for the log only; may be nil
	Facts  []Fact // what was found, for the log and cmg explain only; never a secret
}

// Refuse makes a Refusal; cause may be nil.
func Refuse(status int, code, why string, cause error) *Refusal {
	return &Refusal{Status: status, Code: code, Why: why, Err: cause}
}

func (r *Refusal) Error() string {
	if r.Err != nil {
		return fmt.Sprintf("%s: %s: %v", r.Code, r.Why, r.Err)
	}
	return r.Code + ": " + r.Why
}

// Unwrap gives the inner cause and the kind of the status, so that errors.Is
// works on both.
func (r *Refusal) Unwrap() []error {
	var es []error
	if k := KindOf(r.Status); k != nil {
		es = append(es, k)
	}
	if r.Err != nil {
		es = append(es, r.Err)
	}
	return es
}
