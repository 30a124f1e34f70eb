package cmg

import "time"

// A Report is what a device told about itself, kept as it came.
type Report struct {
	ID       string    `json:"id"` // message id: a second report with it is ignored
	Device   DeviceID  `json:"device"`
	Kind     string    `json:"kind"` // ReportContent and action, such as "Discovery" or "State Message Data"
	Received time.Time `json:"received"`
	Body     string    `json:"body"` // XML
}

// A DeploymentState is how far a device got with one policy's instruction.
type DeploymentState struct {
	Device  DeviceID  `json:"device"`
	Policy  string    `json:"policy"`
	State   string    `json:"state"` // "succeeded" or "failed"
	Detail  string    `json:"detail"`
	Updated time.Time `json:"updated"`
}
