// Package auth answers one question, who is calling, and holds everything the
// answer rests on: certificates, tokens, signatures and every TLS setting.
//
// In the order a site needs it:
//
//   - An [Authority] issues certificates. Each carries a [RoleName] as a URI,
//     cmg://<site>/<role>/<name>, and that name, not a host name, is what two
//     roles of one site know each other by.
//   - An [Identity] is a role's own certificate with the roots it trusts. All
//     TLS settings inside a site come from it; [Front] and [ClientTo] make those
//     of the two ends that face the internet.
//   - A [Keyring] issues the site's tokens; [Tokens] checks them.
//   - The site signs what its gateways have to know ([SignPublication]); a
//     gateway reads it ([ReadPublication]) and makes a [Trust] of it.
//   - [Trust] proves each caller from the [Evidence] a request shows, by one of
//     three [Verifier]s: a client certificate, a token of the site, a token of
//     Microsoft Entra ID. What they rest on that others publish, a [Fetcher]
//     fetches inside; [Known] is what a gateway has of it.
//   - [CallerSigner] and [CallerReader] carry the result inward, in one signed
//     header.
//
// A proof that does not hold is a [cmg.Refusal] whose code says which rule it
// broke. Results are cached for as long as they hold, because a gateway asks
// the same question for every request.
package auth
