package connectionpoint

import (
	"strings"

	"github.com/opencmg/cmg"
)

// withInside adds the way on which gateways themselves ask their site: to
// where the map comes from. No route is published there, and a map may not
// lead it anywhere else.
func (p *Point) withInside(ms []cmg.Mapping) []cmg.Mapping {
	all := make([]cmg.Mapping, 0, len(ms)+1)
	for _, m := range ms {
		if !strings.HasPrefix(strings.ToLower(m.Prefix)+"/", cmg.InsidePath+"/") {
			all = append(all, m)
		}
	}
	if strings.HasPrefix(p.cfg.Map, "https://") {
		all = append(all, cmg.Mapping{Prefix: cmg.InsidePath, Target: strings.TrimSuffix(p.cfg.Map, "/") + cmg.InsidePath})
	}
	return all
}
