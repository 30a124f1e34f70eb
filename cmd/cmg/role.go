package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A setup is what a role's wiring has at hand.
type setup struct {
	app *app
	doc *document
	log *slog.Logger
}

// section fills into from a section of the file and from the environment.
func (s *setup) section(name string, into any) error {
	if err := s.doc.decode(name, into); err != nil {
		return err
	}
	return applyEnvironment(name, into, s.app.lookup)
}

// A roleCommand is a subcommand that runs a role. Its section of the
// configuration is a C: what the file says, then the environment, then flags
// made from its fields.
type roleCommand[C any] struct {
	use, section, short, long string
	run                       func(ctx context.Context, s *setup, c C, again func() (C, error)) error
}

func (r roleCommand[C]) command(a *app) *cobra.Command {
	var c C
	cmd := &cobra.Command{Use: r.use, Short: r.short, Args: takes()}
	cmd.Long = r.long + "\n\nIts section of the configuration file, complete:\n\n" + exampleOf(r.section) +
		"\nA key is overridden by its environment variable, such as " + leavesOf(&c)[0].variable(r.section) +
		",\nand that by its flag."
	addConfigFlag(a, cmd)
	given := addKnobs(cmd.Flags(), r.section, &c)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		read := func() (s *setup, c C, err error) {
			if s, err = a.setup(r.section); err != nil {
				return nil, c, err
			}
			if err = s.section(r.section, &c); err != nil {
				return nil, c, err
			}
			return s, c, given.apply(&c)
		}
		s, c, err := read()
		if err != nil {
			return err
		}
		return r.run(cmd.Context(), s, c, func() (C, error) {
			_, c, err := read()
			return c, err
		})
	}
	return cmd
}

func addConfigFlag(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.configFile, "config", "", "configuration file (default $CMG_CONFIG, else cmg.yaml where there is one)")
}

// setup opens the configuration file, which has to hold the sections that
// are asked for, and makes the logger.
func (a *app) setup(sections ...string) (*setup, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	file := a.configFile
	if file == "" {
		file, _ = a.lookup("CMG_CONFIG")
	}
	if file == "" {
		if _, err := os.Stat(defaultConfig); !errors.Is(err, fs.ErrNotExist) {
			file = defaultConfig
		}
	}
	doc, err := openDocument(file)
	if err != nil {
		return nil, err
	}
	for _, name := range sections {
		if file != "" && !doc.has(name) {
			return nil, usage("%s: it has no section %q\nsee the example: cmg config example", file, name)
		}
	}
	return &setup{app: a, doc: doc, log: log}, nil
}

const defaultConfig = "cmg.yaml"

// knobs are the flags made from a section's fields. They are applied after
// file and environment, so they are kept as text until then.
type knobs []*knob

func addKnobs(fs *pflag.FlagSet, section string, into any) knobs {
	var ks knobs
	for _, l := range leavesOf(into) {
		if _, secret := l.value.Interface().(slog.LogValuer); secret {
			continue // a command line is read by everybody on the machine
		}
		k := &knob{leaf: l}
		f := fs.VarPF(k, l.flag(), "", commentOf(section, l.key()))
		if k.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
		ks = append(ks, k)
	}
	return ks
}

// apply sets what was given in a section like the one the flags were made of.
func (ks knobs) apply(into any) error {
	leaves := leavesOf(into)
	for _, k := range ks {
		if !k.given {
			continue
		}
		for _, l := range leaves {
			if l.key() != k.leaf.key() {
				continue
			}
			if err := l.set(k.text); err != nil {
				return usage("--%s: %w", l.flag(), err)
			}
		}
	}
	return nil
}

// A knob is a flag's value (pflag.Value).
type knob struct {
	leaf  leaf
	text  string
	given bool
}

func (k *knob) String() string { return k.text }

func (k *knob) Set(text string) error {
	if k.given && k.Type() == "list" {
		text = k.text + "," + text
	}
	k.text, k.given = text, true
	return nil
}

func (k *knob) Type() string {
	switch t := k.leaf.value.Type(); {
	case t == durationType:
		return "duration"
	case t.Kind().String() == "slice":
		return "list"
	default:
		return t.Kind().String()
	}
}
