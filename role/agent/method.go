package agent

import "github.com/opencmg/cmg/auth"

// preferred leaves of the ways in which the device can prove itself the best:
// a client certificate that can be used, then a directory token, then tokens
// of the site. A certificate that cannot be used, and nothing beside it, stays:
// what is wrong with it is the better error.
func (c Config) preferred() Config {
	method := "site token"
	switch {
	case c.mutual():
		method = "certificate"
		err := auth.ClientUsable(auth.ClientFiles{Certificate: c.ClientCertificate, Key: c.ClientKey}, c.Now())
		if err == nil || !c.hasTokens() {
			break
		}
		c.Log.Warn("the client certificate cannot be used: the device proves itself by tokens", "err", err)
		c.ClientCertificate, c.ClientKey = "", ""
		return c.preferred()
	case c.EntraToken != nil:
		method = "directory token"
	}
	c.Log.Info("the device proves itself", "by", method)
	return c
}

// hasTokens says that there is another way than a client certificate.
func (c Config) hasTokens() bool {
	return checkPrefix(c.PrefixServer, false) == nil && (c.EntraToken != nil || c.RegistrationTokenFile != "" || c.RegistrationToken != "")
}
