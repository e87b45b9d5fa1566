package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
)

// maxFile bounds a configuration file. One with a comment on every key has a tenth of it.
const maxFile = 64 * KiB

// document is a *Controller or a *Worker.
type document interface {
	Validate() error
	kind() string
}

// LoadController reads and validates the file of a controller. Variables of env, which has the form of [os.Environ],
// override the file; nil means none. Unless the file can't be read, the error is [Problems].
func LoadController(path string, env []string) (*Controller, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseController(path, data, env)
}

// LoadWorker does for a worker what [LoadController] does for a controller.
func LoadWorker(path string, env []string) (*Worker, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseWorker(path, data, env)
}

// ParseController is [LoadController] for what is already in memory; name stands for the file in messages.
func ParseController(name string, data []byte, env []string) (*Controller, error) {
	c := DefaultController()
	if err := parse(&c, name, data, env); err != nil {
		return nil, err
	}
	return &c, nil
}

// ParseWorker is [LoadWorker] for what is already in memory; name stands for the file in messages.
func ParseWorker(name string, data []byte, env []string) (*Worker, error) {
	w := DefaultWorker()
	if err := parse(&w, name, data, env); err != nil {
		return nil, err
	}
	return &w, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer file.Close()
	// One byte over the limit is enough for parse to refuse the file.
	data, err := io.ReadAll(io.LimitReader(file, int64(maxFile)+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return data, nil
}

// parse lays the file and then the environment over the defaults in doc. It validates only what could be read, since a
// value that could not would show up as a second, misleading problem.
func parse(doc document, name string, data []byte, env []string) error {
	d := &decoder{doc: doc, file: name, where: places{"": {source: name}}}
	d.decode(data, reflect.ValueOf(doc).Elem())
	problems := append(d.problems, override(doc, env, d.where)...)
	if len(problems) > 0 {
		return inOrder(problems, name).err()
	}
	if found, ok := errors.AsType[Problems](doc.Validate()); ok {
		for i, p := range found {
			found[i] = d.where.of(p.Path).problem(p.Path, fault{p.Message, p.Remedy})
		}
		return inOrder(found, name).err()
	}
	return nil
}
