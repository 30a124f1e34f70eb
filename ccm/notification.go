package ccm

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// The kinds of tasks that are pushed to clients. Kinds from 70000 on are ours.
const (
	TaskPolicy       = 1     // get policy now
	TaskScript       = 15    // run the script that the parameter names (PROTOCOL 6.7)
	TaskQuery        = 70001 // answer the question in the parameter
	TaskRestartCheck = 70002 // say whether the device waits for a restart
)

// What a client says of a task it was pushed.
const (
	TaskOK      = 1 // taken: the field's one known value
	TaskUnknown = 2 // a kind it knows nothing of
	TaskFailed  = 3 // not taken for another reason
)

// The types of requests of client notification (PROTOCOL 2.4).
const (
	NotifyLogIn    = "LogIn"    // begins: answered at once
	NotifyContinue = "Continue" // waits for tasks
	NotifyLogOut   = "LogOut"   // ends: answered at once
)

// What one message of client notification may hold.
const (
	MaxNotifyRequest = 16 << 10  // bytes, as connection points send it again whole
	MaxNotifyReply   = 256 << 10 // bytes
	MaxTasks         = 32        // in a reply, and answers in a request
	MaxTaskParam     = 4 << 10   // bytes of a task's parameter
)

// A NotifyRequest is what a client sends to be notified.
type NotifyRequest struct {
	Type      string       // one of the types above; over HTTP the address says it too
	Device    cmg.DeviceID // may be empty where the proof names the device
	Time      time.Time    // the client's; zero where it does not say
	Wait      time.Duration
	Token     string // over TCP: a client token, and its signature; see ClientToken
	Signature string
	Answers   []TaskAnswer // to what was pushed before: acknowledges it
}

// A TaskAnswer tells that a client has taken a task, or that it cannot.
type TaskAnswer struct {
	PushID uint64
	Code   int // TaskOK, TaskUnknown or TaskFailed
}

// A NotifyReply is what the management point tells.
type NotifyReply struct {
	Time     time.Time
	Wait     time.Duration // how long requests may wait, at most
	Replaced bool          // another request of the same device took this one's place
	Refusal  string        // over TCP: the code of the refusal that ends the connection
	Tasks    []Task        // in the order of their ids
}

// A Task is something a client is to do now.
type Task struct {
	PushID uint64 // grows with every task of a site
	GUID   string // one for ever: a client that sees it again ignores it
	Type   int
	Param  []byte
}

// XML writes the request.
func (r NotifyRequest) XML() string {
	e := el("BgbRequestMessage", "RequestType", r.Type, "ClientID", string(r.Device),
		"TimeStamp", r.Time.UTC().Format(TimeLayout), "Wait", seconds(r.Wait))
	if r.Token != "" {
		e.attrs = append(e.attrs, attr{"ClientToken", r.Token}, attr{"ClientTokenSignature", r.Signature})
	}
	for _, a := range r.Answers {
		id := strconv.FormatUint(a.PushID, 10)
		e.add(el("BgbResponseMessage", "TimeStamp", r.Time.UTC().Format(TimeLayout), "PushID", id, "TaskID", id, "ReturnCode", strconv.Itoa(a.Code)))
	}
	return e.String()
}

// ReadNotifyRequest reads a request, UTF-8 text of at most MaxNotifyRequest
// bytes. Its errors wrap cmg.ErrInvalid or cmg.ErrTooLarge.
func ReadNotifyRequest(text string) (r NotifyRequest, err error) {
	bad := func(err error) (NotifyRequest, error) {
		return NotifyRequest{}, fmt.Errorf("read notification request: %w", err)
	}
	if len(text) > MaxNotifyRequest {
		return bad(fmt.Errorf("%d bytes: %w", len(text), cmg.ErrTooLarge))
	}
	root, err := parseRoot(text, "BgbRequestMessage")
	if err != nil {
		return bad(err)
	}
	if r.Type, err = NotifyType(root.attr("RequestType")); err != nil {
		return bad(err)
	}
	if id := root.attr("ClientID"); id != "" {
		if r.Device, err = cmg.ParseDeviceID(id); err != nil {
			return bad(err)
		}
	}
	r.Time, _ = time.Parse(TimeLayout, root.attr("TimeStamp"))
	if r.Wait, err = root.attrSeconds("Wait"); err != nil {
		return bad(err)
	}
	if r.Token, err = short("ClientToken", root.attr("ClientToken"), 256); err != nil {
		return bad(err)
	}
	if r.Signature, err = short("ClientTokenSignature", root.attr("ClientTokenSignature"), 4096); err != nil {
		return bad(err)
	}
	answers := root.all("BgbResponseMessage")
	if len(answers) > MaxTasks {
		return bad(fmt.Errorf("%d answers: %w", len(answers), cmg.ErrTooLarge))
	}
	for _, e := range answers {
		a := TaskAnswer{}
		if a.PushID, err = e.attrID("PushID"); err != nil {
			return bad(err)
		}
		if a.Code, err = e.attrInt("ReturnCode"); err != nil {
			return bad(err)
		}
		r.Answers = append(r.Answers, a)
	}
	return r, nil
}

// NotifyType gives the type of request that text names, compared without
// case; cmg.ErrInvalid for any other.
func NotifyType(text string) (string, error) {
	for _, t := range []string{NotifyLogIn, NotifyContinue, NotifyLogOut} {
		if strings.EqualFold(t, text) {
			return t, nil
		}
	}
	return "", fmt.Errorf("request type %.40q is not LogIn, Continue or LogOut: %w", text, cmg.ErrInvalid)
}

// XML writes the reply.
func (r NotifyReply) XML() string {
	e := el("BgbReplyMessage", "TimeStamp", r.Time.UTC().Format(TimeLayout), "Wait", seconds(r.Wait))
	if r.Replaced {
		e.attrs = append(e.attrs, attr{"Replaced", "1"})
	}
	if r.Refusal != "" {
		e.attrs = append(e.attrs, attr{"Refusal", r.Refusal})
	}
	for _, t := range r.Tasks {
		id := strconv.FormatUint(t.PushID, 10)
		e.add(el("BgbPushMessage", "PushID", id, "TaskID", id, "TaskGUID", t.GUID,
			"TaskType", strconv.Itoa(t.Type), "TaskParam", base64.StdEncoding.EncodeToString(t.Param)))
	}
	return e.String()
}

// ReadNotifyReply reads a reply, UTF-8 text of at most MaxNotifyReply bytes.
// Its errors wrap cmg.ErrInvalid or cmg.ErrTooLarge.
func ReadNotifyReply(text string) (r NotifyReply, err error) {
	bad := func(err error) (NotifyReply, error) {
		return NotifyReply{}, fmt.Errorf("read notification: %w", err)
	}
	if len(text) > MaxNotifyReply {
		return bad(fmt.Errorf("%d bytes: %w", len(text), cmg.ErrTooLarge))
	}
	root, err := parseRoot(text, "BgbReplyMessage")
	if err != nil {
		return bad(err)
	}
	r.Time, _ = time.Parse(TimeLayout, root.attr("TimeStamp"))
	r.Replaced = root.attr("Replaced") == "1"
	if r.Refusal, err = short("Refusal", root.attr("Refusal"), 64); err != nil {
		return bad(err)
	}
	if r.Wait, err = root.attrSeconds("Wait"); err != nil {
		return bad(err)
	}
	pushed := root.all("BgbPushMessage")
	if len(pushed) > MaxTasks {
		return bad(fmt.Errorf("%d tasks: %w", len(pushed), cmg.ErrTooLarge))
	}
	for _, e := range pushed {
		t, err := readTask(e)
		if err != nil {
			return bad(err)
		}
		r.Tasks = append(r.Tasks, t)
	}
	return r, nil
}

func readTask(e *element) (t Task, err error) {
	if t.PushID, err = e.attrID("PushID"); err != nil {
		return t, err
	}
	if t.Type, err = e.attrInt("TaskType"); err != nil {
		return t, err
	}
	if t.GUID, err = short("TaskGUID", e.attr("TaskGUID"), 64); err != nil {
		return t, err
	}
	if t.GUID == "" {
		return t, fmt.Errorf("task %d has no TaskGUID: %w", t.PushID, cmg.ErrInvalid)
	}
	if t.Param, err = base64.StdEncoding.DecodeString(e.attr("TaskParam")); err != nil {
		return t, fmt.Errorf("parameter of task %d: %w (%w)", t.PushID, err, cmg.ErrInvalid)
	}
	if len(t.Param) > MaxTaskParam {
		return t, fmt.Errorf("parameter of task %d: %d bytes: %w", t.PushID, len(t.Param), cmg.ErrTooLarge)
	}
	return t, nil
}

// attrID gives an attribute as a number from 1 to 2^63-1.
func (e *element) attrID(name string) (uint64, error) {
	n, err := strconv.ParseUint(e.attr(name), 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s/@%s %.40q is not an id: %w", e.name, name, e.attr(name), cmg.ErrInvalid)
	}
	return n, nil
}

// attrSeconds gives an attribute of whole seconds, a day at most.
func (e *element) attrSeconds(name string) (time.Duration, error) {
	n, err := e.attrInt(name)
	if err == nil && n > 86400 {
		err = fmt.Errorf("%s/@%s %d is more than a day: %w", e.name, name, n, cmg.ErrInvalid)
	}
	return time.Duration(n) * time.Second, err
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
