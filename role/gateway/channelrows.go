package gateway

import (
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg/channel"
)

// A channelRow is one channel on the status page.
type channelRow struct {
	Site            string    `json:"site"`
	ConnectionPoint string    `json:"connection_point"`
	Connection      string    `json:"connection"`
	Transport       string    `json:"transport"` // tcp-tls: to the channel's own port; tcp-tls-port and https: to the clients'
	Since           time.Time `json:"since"`
	InFlight        int       `json:"in_flight"`
}

// note keeps how a channel came, until forget.
func (cs *channels) note(s *channel.Session, site, peer, way string) {
	cs.came.Store(s, channelRow{Site: site, ConnectionPoint: peer, Connection: s.Connection(), Transport: way, Since: time.Now().UTC().Truncate(time.Second)})
}

func (cs *channels) forget(s *channel.Session) { cs.came.Delete(s) }

// rows lists the channels by site and connection point.
func (cs *channels) rows() any {
	rows := []channelRow{}
	cs.came.Range(func(s, row any) bool {
		r := row.(channelRow)
		r.InFlight = s.(*channel.Session).InFlight()
		rows = append(rows, r)
		return true
	})
	slices.SortFunc(rows, func(a, b channelRow) int {
		return strings.Compare(a.Site+" "+a.ConnectionPoint+" "+a.Connection, b.Site+" "+b.ConnectionPoint+" "+b.Connection)
	})
	return rows
}
