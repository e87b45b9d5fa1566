package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

func TestImports(t *testing.T) {
	fset := token.NewFileSet()
	sources := tree(t, fset, parser.ImportsOnly)
	if len(sources) < 100 {
		t.Fatalf("found only %d files", len(sources))
	}
	for _, problem := range checkImports(fset, sources) {
		t.Error(problem)
	}
}

// checkImports names every import that the tables don't allow.
func checkImports(fset *token.FileSet, sources []source) (problems []string) {
	homeless := map[string]bool{}
	for _, s := range sources {
		r, ok := rowOf(s.dir())
		if !ok {
			if !homeless[s.dir()] {
				homeless[s.dir()] = true
				problems = append(problems, fmt.Sprintf(
					"%s: the new package %s has no row: add one to layers in internal/archtest/tables_test.go and to the table in docs/architecture.md",
					s.path, s.dir()))
			}
			continue
		}
		for _, spec := range s.syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				panic(err) // the parser has let it pass
			}
			if rule := broken(s, r, imported); rule != "" {
				problems = append(problems, fmt.Sprintf("%s: %s imports %s: %s", fset.Position(spec.Pos()), s.dir(), imported, rule))
			}
		}
	}
	return problems
}

// rowOf finds the row that fits a package most closely.
func rowOf(dir string) (closest row, found bool) {
	longest := -1
	for _, r := range layers() {
		for _, pattern := range r.of {
			if length := len(strings.TrimSuffix(pattern, "...")); fits(pattern, dir) && length > longest {
				closest, found, longest = r, true, length
			}
		}
	}
	return closest, found
}

// broken is the rule that an import breaks, or empty.
func broken(s source, r row, imported string) string {
	ours, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return crossed(s, imported)
	}
	const change = " (layers in internal/archtest/tables_test.go)"
	switch {
	case s.isTest() && (ours == s.dir() || fitsAny(testParts(), ours) || fitsAny(r.tests, ours)):
		return ""
	case fitsAny(onlyInTests(), ours):
		return "only test files may import it" + change
	case fitsAny(r.may, ours):
		return ""
	case len(r.may) == 0:
		return "it may import nothing of ours" + change
	}
	return "of ours it may import only " + strings.Join(r.may, ", ") + change
}

// crossed is the rule that the import of a library breaks, or empty.
func crossed(s source, imported string) string {
	for library, places := range borders() {
		if !under(library, imported) || fitsAny(places, s.dir()) || fitsAny(places, s.path) {
			continue
		}
		return "only " + strings.Join(places, ", ") + " may (borders in internal/archtest/tables_test.go)"
	}
	return ""
}

func TestImportsThatAreFoundAndThatAreNot(t *testing.T) {
	const ours = module + "/"
	tests := []struct {
		file, imports string
		want          string // empty: allowed
	}{
		{"controller/x.go", ours + "fsm", ""},
		{"controller/x.go", ours + "proto/logpb", ""},
		{"controller/x.go", "fmt", ""},
		{"controller/x.go", ours + "raftnode", "controller/x.go:2:8: controller imports " + ours +
			"raftnode: of ours it may import only fsm, scheduler, controller/startup, proto/..., internal/..."},
		{"controller/startup/x.go", ours + "fsm", "may import only internal/errs"},
		{"internal/oip/x.go", ours + "fsm", "may import only proto/..., internal/..."},
		{"internal/errs/x.go", ours + "internal/rpc", "nothing of ours"},
		{"scheduler/x.go", ours + "scheduler/sim", "only internal/errs"},
		{"scheduler/sim/x.go", ours + "scheduler", ""},
		{"node/x.go", ours + "controller/startup", ""},
		{"node/x.go", ours + "client", "may import only configs"},
		{"cmd/orrery/x.go", ours + "controller", "may import only node"},
		{"proto/newpb/x.go", ours + "internal/errs", "may import only proto/..."},
		{"workerd/engine/emulated/x.go", ours + "proto/logpb", "may import only workerd/engine, internal/..."},
		{"workerd/engine/remote/x.go", ours + "proto/logpb", ""},

		{"raftnode/x_test.go", ours + "internal/testnet", ""},
		{"raftnode/x_test.go", ours + "raftnode", ""},
		{"raftnode/x_test.go", ours + "fsm", "may import only internal/..."},
		{"raftnode/x.go", ours + "internal/testnet", "only test files"},
		{"workerd/engine/gomlx/x_test.go", ours + "models", ""},
		{"workerd/engine/gomlx/x.go", ours + "models", "may import only workerd/engine"},
		{"internal/devcluster/x_test.go", ours + "configs", ""},
		{"internal/devcluster/x.go", ours + "configs", "may import only proto/..."},

		{"scheduling/x.go", "fmt", "scheduling/x.go: the new package scheduling has no row: add one to layers"},
		{"models/sub/x.go", "fmt", "has no row"},

		{"fsm/raft.go", "github.com/hashicorp/raft", ""},
		{"fsm/raft_test.go", "github.com/hashicorp/raft", ""},
		{"fsm/state.go", "github.com/hashicorp/raft", "only raftnode, fsm/raft.go"},
		{"node/consensus.go", "github.com/hashicorp/raft", ""},
		{"node/node.go", "github.com/hashicorp/raft", "only raftnode"},
		{"node/node.go", "github.com/hashicorp/raft-boltdb/v2", "only raftnode may"},
		{"controller/x.go", "github.com/hashicorp/memberlist", "only membership"},
		{"workerd/x.go", "github.com/gomlx/gomlx/backends", "only workerd/engine/gomlx"},
		{"workerd/x.go", "github.com/gomlx/onnx-gomlx/onnx", "only workerd/engine/gomlx"},
		{"cmd/orrery/x.go", "github.com/goccy/go-yaml/ast", "only configs"},
		{"controller/x.go", "github.com/hashicorp/go-hclog", ""},
	}
	for _, test := range tests {
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, test.file, "package x\nimport \""+test.imports+"\"\n", parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		problems := strings.Join(checkImports(fset, []source{{test.file, syntax}}), "\n")
		if test.want == "" && problems != "" || !strings.Contains(problems, test.want) {
			t.Errorf("%s imports %s: %q, want %q", test.file, test.imports, problems, test.want)
		}
	}
}
