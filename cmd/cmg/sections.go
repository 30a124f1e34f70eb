package main

import (
	"maps"
	"slices"

	"github.com/opencmg/cmg/role/agent"
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/role/gateway"
	"github.com/opencmg/cmg/role/managementpoint"
)

// sections maps the name of each section of the configuration to a new,
// empty struct for it.
var sections = map[string]func() any{
	"agent":            func() any { return new(agent.Config) },
	"connection_point": func() any { return new(connectionpoint.Config) },
	"content_store":    func() any { return new(contentStoreSection) },
	"gateway":          func() any { return new(gateway.Config) },
	"management_point": func() any { return new(managementpoint.Config) },
	"site":             func() any { return new(siteSection) },
}

var sectionNames = slices.Sorted(maps.Keys(sections))
