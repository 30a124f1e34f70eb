package managementpoint

import (
	"net/http"
	"strings"

	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/distribution"
)

// folder finds the endpoint below which a path lies.
func folder(path string) (endpoint, bool) {
	n := len(uploadPath)
	switch {
	case len(path) >= n && strings.EqualFold(path[:n], uploadPath) && (len(path) == n || path[n] == '/'):
		return endpoint{"CCM_Incoming", []string{bits.Method}, (*Point).upload}, true
	case isDistribution(path):
		return endpoint{"SMS_DP_SMSPKG$", distribution.Methods, (*Point).distribute}, true
	}
	return endpoint{}, false
}

// bitsRefusal tells a BITS client of an error in its own words.
func bitsRefusal(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil && r.Method == bits.Method {
		bits.Refuse(w.Header(), err)
	}
}
