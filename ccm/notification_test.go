package ccm

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

var (
	notifyTime    = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	notifyRequest = NotifyRequest{
		Type: NotifyContinue, Device: "GUID:AAAAAAAA-0000-4000-8000-000000000001", Time: notifyTime, Wait: 15 * time.Minute,
		Token: "GUID:AAAAAAAA-0000-4000-8000-000000000001;2026-11-22T09:00:00Z;2", Signature: "AB12",
		Answers: []TaskAnswer{{PushID: 7, Code: TaskOK}, {PushID: 9, Code: TaskUnknown}},
	}
	notifyReply = NotifyReply{Time: notifyTime, Wait: time.Minute, Replaced: true, Tasks: []Task{
		{PushID: 10, GUID: "{A}", Type: TaskPolicy, Param: []byte{}},
		{PushID: 1<<63 - 1, GUID: "{B}", Type: TaskScript, Param: []byte("<ScriptContent/>\x00\xff")},
	}}
)

func TestNotificationForms(t *testing.T) {
	wantRequest := `<BgbRequestMessage RequestType="Continue" ClientID="GUID:AAAAAAAA-0000-4000-8000-000000000001" TimeStamp="2026-11-22T09:00:00Z" Wait="900"` +
		` ClientToken="GUID:AAAAAAAA-0000-4000-8000-000000000001;2026-11-22T09:00:00Z;2" ClientTokenSignature="AB12">` +
		`<BgbResponseMessage TimeStamp="2026-11-22T09:00:00Z" PushID="7" TaskID="7" ReturnCode="1"/>` +
		`<BgbResponseMessage TimeStamp="2026-11-22T09:00:00Z" PushID="9" TaskID="9" ReturnCode="2"/></BgbRequestMessage>`
	if d := cmp.Diff(notifyRequest.XML(), wantRequest); d != "" {
		t.Error(d)
	}
	got, err := ReadNotifyRequest(notifyRequest.XML())
	if d := cmp.Diff(got, notifyRequest); d != "" || err != nil {
		t.Error(d, err)
	}
	wantReply := `<BgbReplyMessage TimeStamp="2026-11-22T09:00:00Z" Wait="60" Replaced="1">` +
		`<BgbPushMessage PushID="10" TaskID="10" TaskGUID="{A}" TaskType="1" TaskParam=""/>` +
		`<BgbPushMessage PushID="9223372036854775807" TaskID="9223372036854775807" TaskGUID="{B}" TaskType="15" TaskParam="PFNjcmlwdENvbnRlbnQvPgD/"/></BgbReplyMessage>`
	if d := cmp.Diff(notifyReply.XML(), wantReply); d != "" {
		t.Error(d)
	}
	reply, err := ReadNotifyReply(notifyReply.XML())
	if d := cmp.Diff(reply, notifyReply); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestNotificationLimits(t *testing.T) {
	full := NotifyReply{}
	for i := range MaxTasks {
		full.Tasks = append(full.Tasks, Task{PushID: uint64(i + 1), GUID: strings.Repeat("g", 64), Type: TaskQuery, Param: make([]byte, MaxTaskParam)})
	}
	if _, err := ReadNotifyReply(full.XML()); err != nil {
		t.Errorf("the fullest reply, %d bytes: %v", len(full.XML()), err)
	}
	many := NotifyRequest{Type: NotifyLogIn, Answers: make([]TaskAnswer, MaxTasks)}
	for i := range many.Answers {
		many.Answers[i] = TaskAnswer{PushID: 1<<63 - 1, Code: TaskOK}
	}
	if _, err := ReadNotifyRequest(many.XML()); err != nil {
		t.Errorf("the fullest request, %d bytes: %v", len(many.XML()), err)
	}
	many.Answers = append(many.Answers, TaskAnswer{PushID: 1})
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"too many answers": {many.XML(), cmg.ErrTooLarge},
		"too long":         {strings.Repeat(" ", MaxNotifyRequest) + NotifyRequest{Type: "LogIn"}.XML(), cmg.ErrTooLarge},
		"another type":     {NotifyRequest{Type: "Poke"}.XML(), cmg.ErrInvalid},
		"another root":     {NotifyReply{}.XML(), cmg.ErrInvalid},
		"no id":            {`<BgbRequestMessage RequestType="LogIn"><BgbResponseMessage PushID="0"/></BgbRequestMessage>`, cmg.ErrInvalid},
		"another client":   {`<BgbRequestMessage RequestType="LogIn" ClientID="me"/>`, cmg.ErrInvalid},
		"a long wait":      {`<BgbRequestMessage RequestType="LogIn" Wait="86401"/>`, cmg.ErrInvalid},
	} {
		if _, err := ReadNotifyRequest(c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"no guid":     `<BgbReplyMessage><BgbPushMessage PushID="1" TaskType="1"/></BgbReplyMessage>`,
		"no base64":   `<BgbReplyMessage><BgbPushMessage PushID="1" TaskGUID="g" TaskParam="?"/></BgbReplyMessage>`,
		"negative id": `<BgbReplyMessage><BgbPushMessage PushID="-1" TaskGUID="g"/></BgbReplyMessage>`,
	} {
		if _, err := ReadNotifyReply(text); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzNotification reads what is no message and never takes what it would not
// write again.
func FuzzNotification(f *testing.F) {
	f.Add(notifyRequest.XML())
	f.Add(notifyReply.XML())
	f.Add(`<BgbRequestMessage RequestType="login"/>`)
	f.Add(`<BgbReplyMessage Wait="900"/>`)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ReadNotifyRequest(text); err == nil {
			if again, err := ReadNotifyRequest(r.XML()); len(r.XML()) <= MaxNotifyRequest && (err != nil || len(again.Answers) != len(r.Answers) || again.Type != r.Type || again.Device != r.Device) {
				t.Errorf("%q is read as %+v and again as %+v: %v", text, r, again, err)
			}
		}
		if r, err := ReadNotifyReply(text); err == nil {
			if again, err := ReadNotifyReply(r.XML()); len(r.XML()) <= MaxNotifyReply && (err != nil || len(again.Tasks) != len(r.Tasks)) {
				t.Errorf("%q is read as %+v and again as %+v: %v", text, r, again, err)
			}
		}
	})
}
