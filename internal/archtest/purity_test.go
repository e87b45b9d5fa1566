package archtest

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPurity(t *testing.T) {
	fset := token.NewFileSet()
	sources := tree(t, fset, parser.ParseComments|parser.SkipObjectResolution)
	checked := map[string]bool{}
	for _, problem := range checkPurity(fset, standard(fset), sources, checked) {
		t.Error(problem)
	}
	for _, file := range list("fsm/apply.go", "scheduler/scheduler.go", "controller/startup/startup.go") {
		if !checked[file] {
			t.Errorf("%s was not checked", file)
		}
	}
}

// standard imports the standard library from its sources.
func standard(fset *token.FileSet) types.Importer { return importer.ForCompiler(fset, "source", nil) }

// checkPurity names everything in the pure packages that is not pure, and
// marks the files that it has looked at.
func checkPurity(fset *token.FileSet, std types.Importer, sources []source, checked map[string]bool) (problems []string) {
	typer := newTyper(fset, std, sources)
	for _, dir := range pure() {
		info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
		typer.check(module+"/"+dir, info)
		for _, s := range sources {
			if s.dir() != dir || s.isTest() || fitsAny(shells(), s.path) {
				continue
			}
			checked[s.path] = true
			f := &file{fset: fset, info: info, syntax: s.syntax, sorted: map[ast.Expr]bool{}}
			f.check()
			problems = append(problems, f.problems...)
		}
	}
	return problems
}

// file is a file of a pure package while it is checked.
type file struct {
	fset   *token.FileSet
	info   *types.Info
	syntax *ast.File
	// sorted are iterations over maps that go straight into a sort.
	sorted   map[ast.Expr]bool
	problems []string
}

func (f *file) report(at token.Pos, format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("%s: %s (the pure packages: internal/archtest/tables_test.go)",
		f.fset.Position(at), fmt.Sprintf(format, args...)))
}

func (f *file) check() {
	for _, spec := range f.syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser has let it pass
		}
		ours, isOurs := strings.CutPrefix(imported, module+"/")
		if !fitsAny(pureImports(), imported) && !(isOurs && fitsAny(pure(), ours)) {
			f.report(spec.Pos(), "imports %s, which is not on the list pureImports", imported)
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			f.report(n.Pos(), "starts a goroutine")
		case *ast.RangeStmt:
			f.ranges(n)
		case *ast.CallExpr:
			f.call(n)
		case *ast.Ident:
			f.use(n)
		}
		return true
	})
}

// use checks the mention of a function, called or not.
func (f *file) use(name *ast.Ident) {
	function, ok := f.info.Uses[name].(*types.Func)
	if !ok || function.Signature().Recv() != nil || function.Pkg() == nil {
		return
	}
	from := function.Pkg().Path()
	switch {
	case slices.Contains(impure()[from], function.Name()):
		f.report(name.Pos(), "uses %s.%s: what a pure package has to know is in its arguments", from, function.Name())
	case from == "math/rand/v2" && !slices.Contains(seeded(), function.Name()):
		f.report(name.Pos(), "uses rand.%s, which seeds itself: take a *rand.Rand in the options", function.Name())
	}
}

// ranges checks what a loop goes over.
func (f *file) ranges(loop *ast.RangeStmt) {
	t := f.info.TypeOf(loop.X)
	if t == nil || t == types.Typ[types.Invalid] {
		f.unordered(loop.Pos(), "ranges over something of unknown type, perhaps a map (see standIns in internal/archtest/types_test.go)")
		return
	}
	switch t.Underlying().(type) {
	case *types.Map:
		f.unordered(loop.Pos(), "ranges over a map")
	case *types.Interface:
		f.unordered(loop.Pos(), "ranges over a type parameter, perhaps a map")
	}
}

// call checks for iterations over a map by functions of package maps.
func (f *file) call(call *ast.CallExpr) {
	switch from, name := f.callee(call); {
	case from == "slices" && strings.HasPrefix(name, "Sorted"):
		f.sorted[ast.Unparen(call.Args[0])] = true
	case from == "maps" && slices.Contains(list("All", "Keys", "Values"), name) && !f.sorted[call]:
		f.unordered(call.Pos(), "goes over a map with maps."+name)
	}
}

// callee is the package and name of the function that is called, if it is one
// of a package.
func (f *file) callee(call *ast.CallExpr) (from, name string) {
	selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	function, ok := f.info.Uses[selector.Sel].(*types.Func)
	if !ok || function.Pkg() == nil {
		return "", ""
	}
	return function.Pkg().Path(), function.Name()
}

// unordered reports an iteration, unless a comment on its line or just above
// it says why the order can't reach a result.
func (f *file) unordered(at token.Pos, what string) {
	line := f.fset.Position(at).Line
	for _, group := range f.syntax.Comments {
		first, last := f.fset.Position(group.Pos()).Line, f.fset.Position(group.End()).Line
		if (first == line || last == line-1) && explains(group) {
			return
		}
	}
	f.report(at, "%s: sort first, or say above it `// order: <why it can't reach a result>`", what)
}

// explains says whether a comment has a line "order: <why>".
func explains(group *ast.CommentGroup) bool {
	for line := range strings.Lines(group.Text()) {
		if why, ok := strings.CutPrefix(line, "order:"); ok && strings.TrimSpace(why) != "" {
			return true
		}
	}
	return false
}
