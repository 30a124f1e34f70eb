package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/role/agent"
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/role/gateway"
	"github.com/opencmg/cmg/role/managementpoint"
	"github.com/opencmg/cmg/site"
)

func configCommand(a *app) *cobra.Command {
	example := &cobra.Command{Use: "example", Short: "Print an example with every key there is", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.stdout, exampleText)
			return err
		}}
	check := &cobra.Command{Use: "check FILE", Short: "Say all that is wrong with a configuration file", Args: takes("FILE"),
		Long: `Reads every section of the file, with what the environment overrides, and
checks it as its role would on starting: files are read, certificates
verified. Nothing is started, connected to or changed.`,
		RunE: func(_ *cobra.Command, args []string) error {
			found := a.checkConfig(args[0])
			for _, p := range found {
				fmt.Fprintln(a.stdout, p)
			}
			if len(found) > 0 {
				return &saidError{usage("%d problems", len(found))}
			}
			fmt.Fprintf(a.stdout, "%s: good\n", args[0])
			return nil
		}}
	return group("config", "Check a configuration file, see an example", "", check, example)
}

// checkConfig lists what is wrong with a configuration file, a line each.
func (a *app) checkConfig(file string) (found []string) {
	add := func(section string, err error) {
		var ps problems
		switch {
		case err == nil:
		case errors.As(err, &ps):
			for _, p := range ps {
				found = append(found, p.String())
			}
		default:
			found = append(found, fmt.Sprintf("%s: %s: %v", file, section, err))
		}
	}
	doc, err := openDocument(file)
	var ps problems
	if errors.As(err, &ps) && doc != nil { // unknown sections: the known ones are checked too
		add("", err)
	} else if err != nil {
		return []string{err.Error()}
	}
	s := &setup{app: a, doc: doc, log: slog.New(slog.DiscardHandler)}
	if len(doc.names()) == 0 && len(found) == 0 {
		return []string{file + ": it has no section\nsee the example: cmg config example"}
	}
	for _, name := range doc.names() {
		c := sections[name]()
		if err := s.section(name, c); err != nil {
			add(name, err)
			continue
		}
		add(name, s.tryRole(c))
	}
	return found
}

// tryRole makes a role as its command would, and drops it.
func (s *setup) tryRole(c any) error {
	switch c := c.(type) {
	case *gateway.Config:
		_, err := newGateway(*c, s.log)
		return err
	case *connectionpoint.Config:
		_, err := connectionpoint.New(*c)
		return err
	case *managementpoint.Config:
		c.Site = new(site.Site) // it is not used before Run
		_, err := managementpoint.New(*c)
		return err
	case *agent.Config:
		return tryAgent(*c)
	case *contentStoreSection:
		if _, err := os.Stat(c.Dir); err != nil {
			return err // making the store would make the folder
		}
		cs, err := newContentStore(*c, s.log, s.app.now)
		if err != nil {
			return err
		}
		return cs.disk.Close()
	case *siteSection:
		_, err := os.Stat(siteFolder(c.Dir).database())
		return err
	}
	return fmt.Errorf("a %T cannot be checked", c)
}

// tryAgent makes an agent over an empty state folder: its own would be made
// where it is missing.
func tryAgent(c agent.Config) error {
	if c.StateDir != "" {
		dir, err := os.MkdirTemp("", "cmg-check-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.StateDir = dir
	}
	_, err := agent.New(c)
	return err
}
