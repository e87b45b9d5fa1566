package gomlx

import (
	"fmt"
	"reflect"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/backends/simplego"
)

// newBackend makes a backend that runs on the caller's goroutine alone: one
// core a device, and a panic where it can be recovered. With packgemm a batch
// of 4 costs a third of what it does without.
func newBackend() (backends.Backend, error) {
	backend, err := simplego.New("ops_sequential,packgemm")
	if err != nil {
		return nil, err
	}
	// The option parallelism=0 would do, but it prints to standard output.
	// What it sets is an exported method of an unexported field.
	workers := reflect.ValueOf(backend).Elem().FieldByName("workers")
	if workers.Kind() == reflect.Pointer {
		pool := reflect.NewAt(workers.Type().Elem(), workers.UnsafePointer()).Interface()
		if pool, ok := pool.(interface{ SetMaxParallelism(int) }); ok {
			pool.SetMaxParallelism(0)
			return backend, nil
		}
	}
	return nil, fmt.Errorf("the backend %T has no pool of workers to switch off; adapt newBackend to the version of GoMLX", backend)
}
