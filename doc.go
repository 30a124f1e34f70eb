// Package cmg is the vocabulary of the cloud management gateway: the nouns
// that cross from one role to another, with no I/O and nothing but the
// standard library beneath.
//
// In the order data flows:
//
//   - a [DeviceID] names the device that asks, a [Caller] says who was proven
//     to be asking and how ([Proof]);
//   - a [Route] is what a gateway may pass inward; a [Publication] is all a
//     gateway has to know, signed by the site and carried down the channel;
//   - a [Mapping] tells a connection point where a published prefix leads;
//   - a [Device], a [Policy] and a [Report] are what the management point keeps;
//   - a [Manifest] lists the files of one version of a package, a
//     [PackageGrant] lets one device fetch it.
//
// Errors that mean something to the other end of a wire are told apart by the
// seven kinds in errors.go; a [Refusal] is an error with a code that a person
// can look up.
package cmg
