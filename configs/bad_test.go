package configs

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

// parseFile parses a file as the kind of document that its name begins with.
func parseFile(name string, data []byte, env []string) error {
	if strings.HasPrefix(name, "worker") {
		_, err := ParseWorker(name, data, env)
		return err
	}
	_, err := ParseController(name, data, env)
	return err
}

func badFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 70 {
		t.Fatalf("%d bad files, want at least 70", len(files))
	}
	return files
}

func TestBadFiles(t *testing.T) {
	for _, file := range badFiles(t) {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			err = parseFile(name, data, nil)
			problems, ok := errors.AsType[Problems](err)
			if !ok {
				t.Fatalf("error is %T (%v), want Problems", err, err)
			}
			for _, p := range problems {
				if p.Source != name || p.Message == "" || p.Remedy == "" {
					t.Errorf("lacks a source, a message or a remedy: %+v", p)
				}
			}
			got, expected := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".err"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNoStrayExpectations finds an .err file whose .yaml file has gone.
func TestNoStrayExpectations(t *testing.T) {
	expected, err := filepath.Glob("testdata/bad/*.err")
	if err != nil {
		t.Fatal(err)
	}
	if files := badFiles(t); len(expected) != len(files) {
		t.Errorf("%d .err files for %d .yaml files", len(expected), len(files))
	}
}
