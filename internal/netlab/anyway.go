package netlab

import (
	"errors"
	"fmt"
	"os"
)

// MainAnyway is Main for a program that can do without a network of its own:
// main is told why there is none, or nil.
func MainAnyway(main func(unavailable error) int) (status int) {
	status, err := Main(func() int { return main(nil) })
	if errors.Is(err, ErrUnavailable) {
		return main(err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}
