// Command orrery is the whole of Orrery in one binary: the controller, the
// worker daemon, and what operators do to a cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/orrery-project/orrery/internal/rpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; a second has its usual effect,
	// and ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], &app{
		out: os.Stdout, err: os.Stderr, environ: os.Environ(), dial: rpc.DialTCP, size: terminalSize,
	}))
}
