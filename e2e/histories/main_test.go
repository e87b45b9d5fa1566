package histories

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/netlab"
)

// The variables that the package's documentation names.
const (
	binaryVariable = "E2E_BINARY"
	seedVariable   = "E2E_SEED"
	formVariable   = "HISTORIES"
)

// source is the folder of Orrery's source code.
const source = "../.."

// orrery is the path of the executable that is tested. TestMain sets it before
// any test begins.
var orrery string

// TestMain builds the binary, and runs the tests in a network of their own,
// where they can cut it; without that, where the system does not allow it.
func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "histories:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "orrery-histories-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	orrery = filepath.Join(dir, "orrery")
	if given := os.Getenv(binaryVariable); given == "" {
		err = build(orrery)
	} else {
		orrery, err = filepath.Abs(given)
	}
	if err != nil {
		return 0, err
	}
	// The program starts a second time, inside its network.
	if err := os.Setenv(binaryVariable, orrery); err != nil {
		return 0, err
	}
	watchSources()
	status, err = netlab.Main(m.Run)
	if errors.Is(err, netlab.ErrUnavailable) {
		fmt.Fprintln(os.Stderr, "histories: no network is cut:", err)
		return m.Run(), nil
	}
	return status, err
}

// build builds the binary as the Makefile does.
func build(path string, flags ...string) error {
	arguments := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, flags...)
	command := exec.Command("go", append(arguments, "./cmd/orrery")...)
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", command.Args[1:], err, out)
	}
	return nil
}

// watchSources looks at all sources. go test notes what a test looks at, and
// runs it again, instead of telling its last result, when something has changed.
func watchSources() {
	_ = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != source:
			return fs.SkipDir
		case filepath.Ext(path) == ".go":
			_, _ = os.Stat(path)
		}
		return nil
	})
}

// seed is what the random choices of a test follow from; it is printed.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if given := os.Getenv(seedVariable); given != "" {
		var err error
		if s, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("random choices by %s=%d", seedVariable, s)
	return s
}

// choices are the random choices of one part of a test.
func choices(seed, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }

// long says whether the long form is asked for.
func long() bool { return os.Getenv(formVariable) == "long" }
