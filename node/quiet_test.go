//go:build !race

package node

import "time"

// quiet is how long a test of quiet times is quiet: as long as it says.
func quiet(d time.Duration) time.Duration { return d }
