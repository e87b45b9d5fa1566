//go:build !linux

package netlab

import (
	"fmt"
	"os"
	"runtime"
)

func inside() bool { return false }

// Main can't do on this system what it does on Linux: the error is always
// ErrUnavailable.
func Main(func() int) (status int, err error) { return 1, unavailable() }

func unavailable() error { return fmt.Errorf("%w: %s has none", ErrUnavailable, runtime.GOOS) }

func newSpace() (*os.File, error)      { return nil, unavailable() }
func vacant() error                    { return unavailable() }
func build([]place) error              { return unavailable() }
func unbuild() error                   { return nil }
func (place) wrap() []string           { return nil }
func (place) forward(bool) error       { return unavailable() }
func (place) listen(place, bool) error { return unavailable() }
