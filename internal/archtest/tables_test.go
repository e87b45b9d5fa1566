package archtest

// row says what a package may import of ours. "x/..." means x and all below it;
// a package is under the row that fits it most closely. Whatever a package may
// import, its test files may too, and what testParts lists besides.
type row struct {
	of  []string
	may []string
	// tests is what only the test files may import in addition.
	tests []string
}

// layers is the table of docs/architecture.md: no other import of ours exists.
func layers() []row {
	return []row{
		{of: list("proto/..."), may: list("proto/...")},
		{of: list("configs", "models")},

		{of: list("internal/..."), may: list("proto/...", "internal/...")},
		{of: list("internal/archtest", "internal/errs", "internal/outbox", "internal/tensor", "internal/testnet")},
		{of: list("internal/rpc"), may: list("internal/errs")},
		{of: list("internal/devcluster"), may: list("proto/...", "internal/..."), tests: list("configs")},

		{of: list("scheduler", "controller/startup"), may: list("internal/errs")},
		{of: list("scheduler/sim"), may: list("scheduler", "internal/errs")},
		{of: list("fsm"), may: list("proto/...", "internal/...")},

		{of: list("raftnode", "membership"), may: list("internal/...")},
		{of: list("workerd/engine/..."), may: list("workerd/engine", "internal/...")},
		{of: list("workerd/engine/remote"), may: list("workerd/engine", "proto/...", "internal/...")},
		{of: list("workerd"), may: list("workerd/engine", "proto/...", "internal/...")},
		{of: list("client"), may: list("proto/...", "internal/...")},
		{of: list("controller"), may: list("fsm", "scheduler", "controller/startup", "proto/...", "internal/...")},

		{of: list("node"), may: list("configs", "controller/...", "fsm", "membership", "models", "raftnode", "scheduler/...",
			"workerd/...", "proto/...", "internal/...")}, // all but cmd, client and e2e
		{of: list("cmd/..."), may: list("node", "client", "configs", "scheduler", "scheduler/sim", "models", "proto/...", "internal/...")},
		{of: list("e2e/..."), may: list("client", "models", "proto/...", "internal/...")},
		{of: list("e2e/failover/..."), may: list("e2e/failover/...", "e2e/bench", "client", "models", "proto/...", "internal/...")},
		{of: list("e2e/workers"), may: list("e2e/bench", "client", "proto/...", "internal/...")},
		{of: list("e2e/predict"), may: list("e2e/bench", "client", "models", "proto/...", "internal/...")},
		{of: list("e2e/startup"), may: list("e2e/bench", "client", "proto/...", "internal/...")},
		{of: list("e2e/fidelity"), may: list("e2e/bench", "client", "proto/...", "internal/...")},
		{of: list("e2e/policies"), may: list("e2e/bench", "models", "scheduler", "scheduler/sim")},
		{of: list("e2e/steady"), may: list("e2e/bench", "client", "proto/...", "internal/...")},
	}
}

// testParts are packages that test files anywhere may import. The first of
// them is for nothing else.
func testParts() []string { return list("internal/testnet", "models") }

// onlyInTests are packages that no file but a test may import, whatever its
// row says.
func onlyInTests() []string { return list("internal/testnet", "internal/archtest") }

// borders says which packages or files may know a library. All others go
// through what these offer.
func borders() map[string][]string {
	return map[string][]string{
		"github.com/hashicorp/raft": list("raftnode",
			"fsm/raft.go", "node/consensus.go", // the two adapters
			"fsm/*_test.go", "controller/*_test.go", "internal/testnet/*_test.go"),
		"github.com/hashicorp/raft-boltdb": list("raftnode"),
		"go.etcd.io/bbolt":                 list("raftnode"),
		"github.com/hashicorp/memberlist":  list("membership", "internal/testnet", "node"),
		"github.com/gomlx":                 list("workerd/engine/gomlx"),
		"github.com/goccy/go-yaml":         list("configs"),
	}
}

// pure are the packages that decide: no clock, no randomness of their own, no
// goroutine, no I/O, and no order of a map in a result. Test files are free.
func pure() []string { return list("fsm", "scheduler", "scheduler/sim", "controller/startup") }

// shells are single files of pure packages that join them to the outside.
func shells() []string { return list("fsm/raft.go") }

// pureImports is all that a pure package may import, beside other pure ones.
func pureImports() []string {
	return list(
		"bufio", "bytes", "cmp", "container/heap", "container/list", "crypto/sha256", "encoding/binary", "encoding/csv", "encoding/hex",
		"errors", "fmt", "hash/fnv", "io", "iter", "maps", "math", "math/bits", "math/rand/v2", "path", "slices", "sort",
		"strconv", "strings", "time", "unicode", "unicode/utf8",
		"google.golang.org/protobuf/...",
		module+"/proto/...", module+"/internal/errs",
	)
}

// impure are the functions of those packages that a pure package may not use.
func impure() map[string][]string {
	return map[string][]string{
		"time": list("Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick", "LoadLocation"),
		"fmt":  list("Print", "Printf", "Println", "Scan", "Scanf", "Scanln"),
	}
}

// seeded are the only functions of math/rand/v2 that a pure package may use:
// all others draw from a source that seeds itself.
func seeded() []string { return list("New", "NewPCG", "NewChaCha8", "NewZipf") }

func list(items ...string) []string { return items }
