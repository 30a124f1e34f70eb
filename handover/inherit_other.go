//go:build !unix

package handover

// keepFromChildren has nothing to do where descriptors are not inherited.
func keepFromChildren(int) {}
