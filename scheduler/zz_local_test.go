package scheduler

import (
	"cmp"
	"os"
)

func policyUnderTest() string { return cmp.Or(os.Getenv("POL"), "edf") }
