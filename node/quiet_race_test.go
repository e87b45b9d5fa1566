//go:build race

package node

import "time"

// quiet is how long a test of quiet times is quiet: under the race detector,
// where a virtual minute costs seconds, a tenth of what it says.
func quiet(d time.Duration) time.Duration { return d / 10 }
