package main

import (
	"strings"
	"testing"

	"github.com/opencmg/cmg/role/agent"
)

// TestNotificationSwitch: notification is on unless it says false, as plain
// as a setting that is off by itself.
func TestNotificationSwitch(t *testing.T) {
	for text, off := range map[string]bool{"true": false, "false": true} {
		d, err := parseDocument("t", "/", []byte("agent:\n  notification: "+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		var c agent.Config
		if err := d.decode("agent", &c); err != nil || bool(c.Notification) != off {
			t.Errorf("%s is read as %v, %v", text, c.Notification, err)
		}
		if shown := strings.Contains(render("agent", &c), "notification: false\n"); shown != off {
			t.Errorf("%s is written as %q", text, render("agent", &c))
		}
		var e agent.Config
		lookup := func(name string) (string, bool) { return text, name == "CMG_AGENT_NOTIFICATION" }
		if err := applyEnvironment("agent", &e, lookup); err != nil || bool(e.Notification) != off {
			t.Errorf("%s of the environment is %v, %v", text, e.Notification, err)
		}
	}
	d, err := parseDocument("t", "/", []byte("agent:\n  notification: \"off\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.decode("agent", new(agent.Config)); err == nil || !strings.Contains(err.Error(), "true or false") {
		t.Errorf("a text is taken: %v", err)
	}
}
