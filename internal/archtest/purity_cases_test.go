package archtest

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

func TestImpurityThatIsFoundAndThatIsNot(t *testing.T) {
	tests := map[string]struct {
		code string
		want string // part of the one problem; empty: none
	}{
		"a clock":                       {`import "time"; func f() int64 { return time.Now().Unix() }`, "uses time.Now"},
		"a clock under another name":    {`import t "time"; func f(a t.Time) t.Duration { return t.Since(a) }`, "uses time.Since"},
		"a clock as a value":            {`import "time"; type o struct { now func() time.Time }; var x = o{now: time.Now}`, "uses time.Now"},
		"a dot import":                  {`import . "time"; func f() { Sleep(Second) }`, "uses time.Sleep"},
		"a timer":                       {`import "time"; func f() any { return time.NewTimer(time.Second) }`, "uses time.NewTimer"},
		"times as data":                 {`import "time"; func f(a, b time.Time) bool { return a.After(b.Add(time.Second)) }`, ""},
		"a method of its own named Now": {`type c struct{}; func (c) Now() int { return 0 }; func f() int { return c{}.Now() }`, ""},

		"global randomness":        {`import "math/rand/v2"; func f() int { return rand.IntN(3) }`, "uses rand.IntN"},
		"global generic one":       {`import "math/rand/v2"; func f() int { return rand.N(3) }`, "uses rand.N"},
		"old randomness":           {`import "math/rand"; func f(r *rand.Rand) int { return r.Intn(3) }`, "imports math/rand, "},
		"seeded randomness":        {`import "math/rand/v2"; func f() int { return rand.New(rand.NewPCG(1, 2)).IntN(3) }`, ""},
		"randomness as an option":  {`import "math/rand/v2"; type Options struct { Rand *rand.Rand }`, ""},
		"randomness of the system": {`import _ "crypto/rand"`, "imports crypto/rand"},

		"files":           {`import _ "os"`, "imports os"},
		"file systems":    {`import _ "io/fs"`, "imports io/fs"},
		"sockets":         {`import _ "net"`, "imports net"},
		"printing":        {`import "fmt"; func f() { fmt.Println() }`, "uses fmt.Println"},
		"formatting":      {`import "fmt"; func f() string { return fmt.Sprint(1) }`, ""},
		"a library":       {`import _ "github.com/hashicorp/go-hclog"`, "imports github.com/hashicorp/go-hclog"},
		"protobuf":        {`import _ "google.golang.org/protobuf/proto"`, ""},
		"impure of ours":  {`import _ "` + module + `/internal/link"`, "imports " + module + "/internal/link"},
		"errors of ours":  {`import _ "` + module + `/internal/errs"`, ""},
		"a goroutine":     {`func f() { go f() }`, "starts a goroutine"},
		"a channel":       {`func f(c chan int) { c <- 1 }`, ""},
		"a waiting group": {`import "sync"; func f(w *sync.WaitGroup) { w.Go(func() {}) }`, "imports sync"},

		"a map":                {"func f(m map[int]int) (s []int) { for k := range m { s = append(s, k) }; return s }", "ranges over a map"},
		"a named map":          {"type set map[string]bool; type t struct { s set }; func f(x *t) { for range x.s {} }", "ranges over a map"},
		"a map of a message":   {`import "` + module + `/proto/fakepb"; func f(m *fakepb.M) { for range m.GetLabels() {} }`, "ranges over a map"},
		"a list of a message":  {`import "` + module + `/proto/fakepb"; func f(m *fakepb.M) { for range m.Rows {} }`, ""},
		"a map by a parameter": {"func f[M ~map[K]V, K comparable, V any](m M) { for range m {} }", "type parameter"},
		"an unknown type":      {`import "google.golang.org/protobuf/x"; func f(m x.M) { for range m.Fields() {} }`, "unknown type"},
		"a copy's field":       {`import ("google.golang.org/protobuf/proto"; "` + module + `/proto/fakepb"); func f(m *fakepb.M) { for range proto.CloneOf(m).Rows {} }`, ""},
		"a slice":              {"func f(s []int) { for range s {} }", ""},
		"a number":             {"func f() { for range 3 {} }", ""},
		"a reason above":       {"func f(m map[int]int) (n int) {\n// order: a sum has none\nfor _, v := range m { n += v }\nreturn n }", ""},
		"a long reason above":  {"func f(m map[int]int) (n int) {\n// order: a sum\n// has none\nfor _, v := range m { n += v }\nreturn n }", ""},
		"a reason beside":      {"func f(m map[int]int) (n int) {\nfor _, v := range m { // order: a sum has none\nn += v }\nreturn n }", ""},
		"a reason elsewhere":   {"func f(m map[int]int) (n int) {\n// order: a sum has none\n\nfor _, v := range m { n += v }\nreturn n }", "fake.go:5:1: ranges over a map"},
		"an empty reason":      {"func f(m map[int]int) {\n// order:\nfor range m {}\n}", "ranges over a map"},
		"another comment":      {"func f(m map[int]int) {\n// in order\nfor range m {}\n}", "ranges over a map"},
		"the keys":             {`import ("maps"; "slices"); func f(m map[int]int) []int { return slices.Collect(maps.Keys(m)) }`, "maps.Keys"},
		"the keys in a loop":   {`import "maps"; func f(m map[int]int) { for range maps.Keys(m) {} }`, "maps.Keys"},
		"the keys sorted":      {`import ("maps"; "slices"); func f(m map[int]int) { for range slices.Sorted(maps.Keys(m)) {} }`, ""},
		"a copy":               {`import "maps"; func f(m map[int]int) map[int]int { return maps.Clone(m) }`, ""},
	}
	const message = `package fakepb
		type M struct { Labels map[string]string; Rows []int }
		func (m *M) GetLabels() map[string]string { return m.Labels }`
	fset := token.NewFileSet()
	std := standard(fset)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			found := checkPurity(fset, std, []source{
				parse(t, fset, "proto/fakepb/m.go", message),
				parse(t, fset, "scheduler/fake.go", "package scheduler\n"+test.code),
			}, map[string]bool{})
			switch {
			case test.want == "" && len(found) != 0:
				t.Errorf("found %q, want nothing", found)
			case test.want != "" && (len(found) != 1 || !strings.Contains(found[0], test.want)):
				t.Errorf("found %q, want one with %q", found, test.want)
			}
		})
	}
}

func TestPurityIsNotAskedOfTestsShellsAndOthers(t *testing.T) {
	const code = `package x; import "os"; func f() { go os.Exit(1) }`
	fset := token.NewFileSet()
	std := standard(fset)
	for _, path := range list("fsm/state_test.go", "fsm/raft.go", "controller/x.go") {
		if found := checkPurity(fset, std, []source{parse(t, fset, path, code)}, map[string]bool{}); len(found) != 0 {
			t.Errorf("%s: found %q, want nothing", path, found)
		}
	}
	if found := checkPurity(fset, std, []source{parse(t, fset, "fsm/state.go", code)}, map[string]bool{}); len(found) != 2 {
		t.Errorf("found %q, want two problems", found)
	}
}

func parse(t *testing.T, fset *token.FileSet, path, code string) source {
	t.Helper()
	syntax, err := parser.ParseFile(fset, path, code, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{path, syntax}
}
