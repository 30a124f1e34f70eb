package ccm

import (
	"strconv"
	"time"
)

// TopicContentDeployment is the type of state messages about our own content
// deployments: the field's types end below 10000.
const TopicContentDeployment = 70000

// The states of a content deployment.
const (
	StateSucceeded = 1
	StateFailed    = 2
)

// A StateMessage is one change of one thing's state (PROTOCOL 6.5).
type StateMessage struct {
	Time      time.Time // zero where it cannot be read
	Serial    int       // grows with every message of a device
	TopicID   string    // such as the id of a policy
	TopicType int
	StateID   int
	Details   string
	Params    []string
}

func (s StateMessage) element() *element {
	e := el("StateMessage", "MessageTime", s.Time.UTC().Format(wmiTime), "SerialNumber", strconv.Itoa(s.Serial)).add(
		el("Topic", "ID", s.TopicID, "Type", strconv.Itoa(s.TopicType), "IDType", "3", "User", "", "UserSID", ""),
		el("State", "ID", strconv.Itoa(s.StateID), "Criticality", "0"))
	if s.Details != "" {
		e.add(&element{name: "StateDetails", attrs: []attr{{"Type", "1"}}, text: s.Details, cdata: true})
	}
	params := el("UserParameters", "Flags", "0", "Count", strconv.Itoa(len(s.Params)))
	for _, p := range s.Params {
		params.addText("Param", p)
	}
	return e.add(params)
}

// readStateMessage reads what it can: a number that is none stays 0, because
// the report is kept as it came anyway.
func readStateMessage(e *element) StateMessage {
	s := StateMessage{Time: readWMITime(e.attr("MessageTime")), TopicID: e.find("Topic").attr("ID"), Details: e.find("StateDetails").value()}
	s.Serial, _ = e.attrInt("SerialNumber")
	s.TopicType, _ = e.find("Topic").attrInt("Type")
	s.StateID, _ = e.find("State").attrInt("ID")
	for _, p := range e.find("UserParameters").all("Param") {
		s.Params = append(s.Params, p.value())
	}
	return s
}
