// Package bench is what the benchmarks on real processes have in common: a
// steady load of inference requests, control writes beside it, whether a cluster
// is whole, what its logs tell, and how busy the machine is.
package bench

import (
	"context"
	"errors"
	"flag"
	"strings"
	"time"
)

// Pause waits, unless ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// LibraryTimeouts are raft's defaults, as keys of a controller's configuration.
// But the lease, 500 ms there, is as long as the other timeouts: a follower that
// loses its connection to the leader would wait no longer than that, which the
// library does not do.
func LibraryTimeouts() map[string]string {
	return map[string]string{
		"raft.heartbeat_timeout": "1s", "raft.election_timeout": "1s", "raft.leader_lease": "1s", "raft.commit_timeout": "50ms",
	}
}

// KeysFlag defines the flag -set, which collects keys of the controllers'
// configurations.
func KeysFlag(f *flag.FlagSet) map[string]string {
	keys := map[string]string{}
	f.Func("set", "a key of the controllers' configurations, as raft.heartbeat_timeout=300ms; may be repeated", func(text string) error {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return errors.New("write it as key=value")
		}
		keys[key] = value
		return nil
	})
	return keys
}
