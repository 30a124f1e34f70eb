// Package ccm speaks the messages of Configuration Manager's client: what an
// agent says to a management point and what it is answered.
//
// A message travels as the body of one HTTP request with the method CCM_POST,
// in two MIME parts (PROTOCOL 3.1): a header, the XML element Msg, and a
// payload, usually compressed, in which the header's Body element points at
// the XML document that is meant. [ReadMessage] reads one and keeps the bytes
// as they came, because signatures are made over those; [Sending] writes a
// request, [Reply] the answer to one.
//
// Inside the messages, in the order a device meets them:
//
//   - [Registration] and [RegistrationReply] give a device its id;
//   - [ClientToken] and [ReadClientToken] prove, in HTTP headers, that a
//     request comes from the key that was registered;
//   - [AssignmentRequest] and [AssignmentReply] name the policies, a
//     [PolicyBody] holds one, a [ContentDeployment] is our own instruction;
//   - [ContentLocationRequest] and [ContentLocationReply] say where content is;
//   - [Report] is what a device tells about itself.
//
// Text is UTF-16LE (PROTOCOL 0). Whatever comes from outside is bounded in
// size, number and depth, holds no document type and no entities of its own,
// and wraps cmg.ErrInvalid or cmg.ErrTooLarge where it is refused.
package ccm

// The endpoints messages are addressed to (PROTOCOL 3.5).
const (
	EndpointRegistration = "MP_ClientRegistration"
	EndpointPolicy       = "MP_PolicyManager"
	EndpointLocation     = "MP_LocationManager"
	EndpointDiscovery    = "MP_DdrEndpoint"
	EndpointState        = "MP_RelayEndpoint"
)

// Method is the HTTP method that carries a message.
const Method = "CCM_POST"

// UserAgent is what the field's senders of messages call themselves.
const UserAgent = "ConfigMgr Messaging HTTP Sender"

// TimeLayout is how messages write a time, always in UTC.
const TimeLayout = "2006-01-02T15:04:05Z"
