package cmg

// A GatewayService is a gateway as clients know it: a service name on a port,
// behind which stand one or more instances.
type GatewayService struct {
	Host string `json:"host"` // service name: the name on the server certificate
	Port int    `json:"port"`
}

// RoleKind is a role's name as it stands in certificates, the configuration
// and subcommands.
type RoleKind string

// The roles.
const (
	RoleGateway         RoleKind = "gateway"
	RoleConnectionPoint RoleKind = "connection-point"
	RoleManagementPoint RoleKind = "management-point"
	RoleContentStore    RoleKind = "content-store"
	RoleAgent           RoleKind = "agent"
	RoleSite            RoleKind = "site" // signs publications
)
