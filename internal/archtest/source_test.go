package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/orrery-project/orrery"
	root   = "../.."
)

// source is one file of the repository. Its name in the FileSet is its path.
type source struct {
	// path is from the repository's root, with slashes.
	path   string
	syntax *ast.File
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// tree parses all files of this module, for every platform and build tag.
func tree(t *testing.T, fset *token.FileSet, mode parser.Mode) []source {
	t.Helper()
	var sources []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != root && foreign(name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		syntax, err := parser.ParseFile(fset, relative, content, mode)
		if err != nil {
			return err
		}
		sources = append(sources, source{relative, syntax})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

// foreign says whether a folder holds none of this module's packages.
func foreign(dir string) bool {
	base := filepath.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// fits says whether a name is meant by a pattern: "x", "x/..." for x and all
// below it, or "x/*.go" for files.
func fits(pattern, name string) bool {
	if above, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(above, name)
	}
	matched, _ := path.Match(pattern, name) // an error is a pattern that fits nothing
	return matched
}

// under says whether name is folder or below it.
func under(folder, name string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

func fitsAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, name) })
}
