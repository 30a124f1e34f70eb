package site

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SITE_TEST_WRITER"); path != "" {
		writeUntilKilled(path, os.Getenv("SITE_TEST_NAME"))
		return
	}
	goleak.VerifyTestMain(m)
}
