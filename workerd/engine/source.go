package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadSource reads the file at name below the model directory root, of at most
// limit bytes. Paths and links that lead out of root are refused. It fails
// with ErrBadSource.
func ReadSource(root *os.Root, name string, limit int64) ([]byte, error) {
	// Opening a named pipe would block, so look first.
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no file %q below the model directory %s; copy it there or correct the source",
			ErrBadSource, name, root.Name())
	case err != nil:
		return nil, fmt.Errorf("%w: %q must be a file below the model directory %s: %w", ErrBadSource, name, root.Name(), err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %q is not a regular file", ErrBadSource, name)
	case info.Size() > limit:
		return nil, fmt.Errorf("%w: %q has %d bytes; the most is %d", ErrBadSource, name, info.Size(), limit)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: open %q: %w", ErrBadSource, name, err)
	}
	defer f.Close()
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("%w: read %q: %w", ErrBadSource, name, err)
	}
	return content, nil
}
