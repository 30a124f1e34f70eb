package main

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asBinary, set in the environment, makes the test binary be cmg: a lab
// starts the binary that it is.
const asBinary = "OPENCMG_TEST_IS_CMG"

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestUntilSignal(t *testing.T) {
	ctx, stop := untilSignal(context.Background())
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Skip("this system sends no signals")
	}
	<-ctx.Done()
	stop()
}
