package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// variable names the file of a binary to test.
const variable = "E2E_BINARY"

// orrery is the path of the executable that is tested, modelDir that of the
// models that come with Orrery. TestMain sets them before any test begins.
var orrery, modelDir string

// TestMain builds the binary, and afterwards looks for what the tests left
// behind.
func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	root, err := os.MkdirTemp("", "orrery-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(root)
	if orrery, err = build(root); err != nil {
		return 0, err
	}
	if modelDir, err = filepath.Abs("../models"); err != nil {
		return 0, err
	}
	// Whatever a process writes beside its data turns up here, and the variable
	// marks the processes as ours.
	temporary := filepath.Join(root, "tmp")
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return 0, err
	}
	if err := os.Setenv("TMPDIR", temporary); err != nil {
		return 0, err
	}
	before := files(".", modelDir)
	watchSources()
	status = m.Run()
	if left := processes("TMPDIR=" + temporary); len(left) > 0 {
		return status, fmt.Errorf("processes are left: %v", left)
	}
	after := files(".", modelDir, temporary)
	maps.DeleteFunc(after, func(name string, _ bool) bool { return before[name] })
	if len(after) > 0 {
		return status, fmt.Errorf("files are left: %v", slices.Sorted(maps.Keys(after)))
	}
	return status, nil
}

// build returns the path of the binary to test, which it builds as the
// Makefile does unless one is named.
func build(dir string) (string, error) {
	if given := os.Getenv(variable); given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return filepath.Abs(given)
	}
	path := filepath.Join(dir, "orrery")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "../cmd/orrery")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	return path, nil
}

// watchSources looks at all sources. go test notes what a test looks at, and
// runs it again, instead of telling its last result, when something has changed.
func watchSources() {
	for path := range files("..") {
		if filepath.Ext(path) == ".go" {
			_, _ = os.Stat(path)
		}
	}
}

// artifacts is where go test -artifacts puts what failing tests keep.
const artifacts = "_artifacts"

// files are the paths below some folders, without those that are hidden or kept
// on purpose.
func files(dirs ...string) map[string]bool {
	names := map[string]bool{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || path == dir: // not there, or no longer
				return nil
			case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == artifacts):
				return fs.SkipDir
			}
			names[path] = true
			return nil
		})
	}
	return names
}

// processes are the ids of those that were started with a variable, but this
// one; none where the system has no /proc.
func processes(variable string) []string {
	var ids []string
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		id := filepath.Base(filepath.Dir(path))
		env, err := os.ReadFile(path)
		if err == nil && id != fmt.Sprint(os.Getpid()) && slices.ContainsFunc(bytes.Split(env, []byte{0}),
			func(v []byte) bool { return string(v) == variable }) {
			ids = append(ids, id)
		}
	}
	return ids
}
