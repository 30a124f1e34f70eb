package cmg

import (
	"fmt"
	"slices"
)

// A Class says how much a route's requests matter when there is not room for
// all: those of the last class are turned away first.
type Class string

// The classes, the first first.
const (
	ClassRegistration Class = "registration" // registration, tokens, notification
	ClassPolicy       Class = "policy"       // policy and locations; an empty class is this one
	ClassState        Class = "state"        // status and state messages
	ClassBulk         Class = "bulk"         // inventory, and whatever else can wait
)

// Classes is how many there are.
const Classes = 4

var classes = [Classes]Class{ClassRegistration, ClassPolicy, ClassState, ClassBulk}

// Rank gives the class's place, 0 the first.
func (c Class) Rank() int {
	switch c {
	case ClassRegistration:
		return 0
	case ClassState:
		return 2
	case ClassBulk:
		return 3
	}
	return 1
}

// Check says what is wrong with c.
func (c Class) Check() error {
	if c != "" && !slices.Contains(classes[:], c) {
		return fmt.Errorf("class %.40q is none of %v: %w", string(c), classes, ErrInvalid)
	}
	return nil
}
