package bits

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// An HResult is an error as BITS names it.
type HResult uint32

// The errors that this protocol uses.
const (
	ResultNone            HResult = 0
	ResultAccessDenied    HResult = 0x80070005
	ResultInvalid         HResult = 0x80070057
	ResultDiskFull        HResult = 0x80070070
	ResultQuota           HResult = 0x80070718
	ResultFailed          HResult = 0x80004005
	ResultSessionNotFound HResult = 0x8020001F
	ResultTooLarge        HResult = 0x80200020
)

func (r HResult) String() string { return fmt.Sprintf("0x%X", uint32(r)) }

// Who found an error, in BITS-Error-Context.
const (
	ContextServer      = "0x5"
	ContextApplication = "0x7" // what takes the whole files
)

// Refuse puts into an answer's header what a BITS client reads of an error,
// unless it is there already. Whoever refuses a packet before it gets to a
// Server calls it.
func Refuse(h http.Header, err error) {
	if err == nil || h.Get(HeaderErrorCode) != "" {
		return
	}
	result := ResultFailed
	switch cmg.StatusOf(err) {
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		result = ResultInvalid
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotImplemented:
		result = ResultAccessDenied
	}
	setError(h, result, ContextServer)
}

func setError(h http.Header, r HResult, context string) {
	h.Set(HeaderPacketType, string(Ack))
	h.Set(HeaderErrorCode, r.String())
	h.Set(HeaderError, r.String())
	h.Set(HeaderErrorContext, context)
}

// A refusal is an error with what BITS calls it.
type refusal struct {
	result HResult
	*cmg.Refusal
}

func (r *refusal) Unwrap() error { return r.Refusal }

func refuse(result HResult, status int, code, why string, cause error) error {
	return &refusal{result, cmg.Refuse(status, code, why, cause)}
}

func badPacket(why string, cause error) error {
	return refuse(ResultInvalid, http.StatusBadRequest, "CMGMP_Upload_Bad_Packet", why, cause)
}

func sessionUnknown(cause error) error {
	return refuse(ResultSessionNotFound, http.StatusInternalServerError, "CMGMP_Upload_Session_Unknown", "there is no such session: create one", cause)
}

// diskError gives what the disk said, where that is no fault of its own, the
// code for it.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return refuse(ResultDiskFull, http.StatusServiceUnavailable, "CMGMP_Upload_Disk_Full", "the disk for uploads is full", err)
	case errors.Is(err, fs.ErrNotExist):
		return sessionUnknown(err)
	}
	return err
}

// A Failure is a refusal as a Client was told it.
type Failure struct {
	Status  int     // HTTP status
	Result  HResult // 0 where the answer names none
	Context string  // ContextServer, ContextApplication or empty
	Code    string  // of CMG-Refusal, where that is there
}

func (f *Failure) Error() string {
	s := fmt.Sprintf("refused with status %d", f.Status)
	if f.Code != "" {
		s += " " + f.Code
	}
	if f.Result != ResultNone {
		s += " " + f.Result.String()
	}
	return s
}

// Unwrap gives the kind of the status.
func (f *Failure) Unwrap() error { return cmg.KindOf(f.Status) }

// passing says whether the same may work later.
func (f *Failure) passing() bool {
	switch f.Result {
	case ResultTooLarge, ResultInvalid, ResultAccessDenied:
		return false
	}
	return f.Status >= 500 && f.Status != http.StatusNotImplemented || f.Status == http.StatusTooManyRequests || f.Status == http.StatusRequestTimeout
}

// readFailure gives nil for an Ack.
func readFailure(r *http.Response) *Failure {
	if r.StatusCode == http.StatusOK || r.StatusCode == http.StatusCreated {
		return nil
	}
	f := &Failure{Status: r.StatusCode, Context: r.Header.Get(HeaderErrorContext)}
	text := r.Header.Get(HeaderErrorCode)
	if text == "" {
		text = r.Header.Get(HeaderError)
	}
	if n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(text), "0x"), 16, 32); err == nil {
		f.Result = HResult(n)
	}
	if code := r.Header.Get("CMG-Refusal"); len(code) <= 100 && strings.Trim(code, letters) == "" {
		f.Code = code
	}
	return f
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
