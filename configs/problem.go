package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Path is the key at fault, for example raft.leader_lease or devices[0].kind; empty for a whole file.
	Path string
	// Message says what is wrong, with the value; Remedy what to do about it.
	Message, Remedy string
	// Source is the file, or the environment variable, that the value came from; empty if the configuration was not
	// loaded. Line and Column count from 1 and are 0 where the file doesn't name the key.
	Source       string
	Line, Column int
}

// Error returns "source:line:column: path: message; remedy", less what is empty.
func (p Problem) Error() string {
	at := p.Source
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", at, p.Line, p.Column)
	}
	text := p.Message
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	parts := slices.DeleteFunc([]string{at, p.Path, text}, func(part string) bool { return part == "" })
	return strings.Join(parts, ": ")
}

// Problems is the error of loading and validating: everything that is wrong, those in the file by line.
type Problems []Problem

// Error returns one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// err returns nil for no problems, which a bare conversion to error would not be.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// fault is what is wrong with a value, wherever it stands. The zero fault means that nothing is.
type fault struct{ message, remedy string }

func faultf(remedy, format string, args ...any) fault {
	return fault{message: fmt.Sprintf(format, args...), remedy: remedy}
}

// place is where a value was given: a position in a file, or an environment variable.
type place struct {
	source       string
	line, column int
}

func (p place) problem(path string, f fault) Problem {
	return Problem{Path: path, Message: f.message, Remedy: f.remedy, Source: p.source, Line: p.line, Column: p.column}
}

// places holds where each key that was given stands.
type places map[string]place

// of returns the place of the key, else of the nearest section around it, else of the file.
func (p places) of(path string) place {
	for path != "" {
		if at, ok := p[path]; ok {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return p[""]
}

// replace records that the key, with all below it, was given at another place.
func (p places) replace(path string, at place) {
	for known := range p {
		if strings.HasPrefix(known, path+".") || strings.HasPrefix(known, path+"[") {
			delete(p, known)
		}
	}
	p[path] = at
}

// inOrder sorts by place: the file from its top, then the environment. Those at one place keep their order.
func inOrder(problems Problems, file string) Problems {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if (a.Source == file) != (b.Source == file) {
			if a.Source == file {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return problems
}
