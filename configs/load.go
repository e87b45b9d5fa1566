package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
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

// parse lays the file and then the environment over the defaults in doc, and reports all problems of reading and of
// validating together. Where something could not be read, only the keys that are written in other sections are
// validated: a value that was not read, or one that is compared with it, would show up as a second, misleading problem.
func parse(doc document, name string, data []byte, env []string) error {
	d := &decoder{doc: doc, file: name, where: places{"": {source: name}}}
	d.decode(data, reflect.ValueOf(doc).Elem())
	problems := append(d.problems, override(doc, env, d.where)...)
	unread := map[string]bool{}
	for _, p := range problems {
		unread[section(p.Path)] = true
	}
	found, _ := errors.AsType[Problems](doc.Validate())
	for _, p := range found {
		_, written := d.where[p.Path]
		if len(unread) == 0 || written && !unread[""] && !unread[section(p.Path)] {
			problems = append(problems, d.where.of(p.Path).problem(p.Path, fault{p.Message, p.Remedy}))
		}
	}
	return inOrder(problems, name).err()
}

// section is the first part of a key's path: raft of raft.leader_lease.
func section(path string) string {
	if i := strings.IndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return path
}
