package archtest

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"strings"
)

// typer finds the types in this module's packages from their sources alone. Of
// the standard library it knows what pure packages may import. All else looks
// empty to it, except for standIns: what is declared there has no type.
type typer struct {
	fset    *token.FileSet
	std     types.Importer
	sources map[string][]*ast.File // by package path, without test files
	done    map[string]*types.Package
}

func newTyper(fset *token.FileSet, std types.Importer, sources []source) *typer {
	t := &typer{
		fset:    fset,
		std:     std,
		sources: map[string][]*ast.File{},
		done:    map[string]*types.Package{},
	}
	for _, s := range sources {
		if at := module + "/" + s.dir(); !s.isTest() {
			t.sources[at] = append(t.sources[at], s.syntax)
		}
	}
	return t
}

// Import makes typer a types.Importer.
func (t *typer) Import(imported string) (*types.Package, error) {
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") && fitsAny(pureImports(), imported) {
		return t.std.Import(imported)
	}
	if p := t.done[imported]; p != nil {
		return p, nil
	}
	if under(module, imported) {
		if len(t.sources[imported]) == 0 {
			return nil, errors.New("no such package")
		}
		return t.check(imported, &types.Info{}), nil
	}
	if code, ok := standIns()[imported]; ok {
		syntax, err := parser.ParseFile(t.fset, imported, code, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		t.sources[imported] = []*ast.File{syntax}
		return t.check(imported, &types.Info{}), nil
	}
	p := types.NewPackage(imported, path.Base(imported))
	p.MarkComplete()
	t.done[imported] = p
	return p, nil
}

// standIns declare what the types of loops in pure packages hang on in other
// libraries, which would take seconds to read.
func standIns() map[string]string {
	return map[string]string{
		"google.golang.org/protobuf/proto": "package proto\nfunc CloneOf[M any](m M) M",
	}
}

// check fills in info for a package. Errors are ignored: they come from the
// libraries that look empty, and the compiler finds all others.
func (t *typer) check(imported string, info *types.Info) *types.Package {
	config := types.Config{Importer: t, Error: func(error) {}}
	p, _ := config.Check(imported, t.fset, t.sources[imported], info)
	t.done[imported] = p
	return p
}
