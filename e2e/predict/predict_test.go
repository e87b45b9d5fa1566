//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

func TestThePlanIsWhatItSays(t *testing.T) {
	pictures := make([]picture, 5)
	load := plan(2000, 100, 1, pictures)
	if len(load) != 2000 {
		t.Fatalf("%d requests", len(load))
	}
	if end := load[1999].at; end < 15*time.Second || end > 25*time.Second {
		t.Errorf("2000 requests at 100/s end after %v", end)
	}
	if !slices.IsSortedFunc(load, func(a, b planned) int { return int(a.at - b.at) }) {
		t.Error("they are not in order")
	}
	seen := map[time.Duration]int{}
	for _, p := range load {
		seen[p.deadline]++
		if n := len(p.pictures); n < 1 || n > 3 {
			t.Errorf("%d rows", n)
		}
	}
	for _, d := range deadlines {
		if seen[d] < 300 {
			t.Errorf("deadline %v: %d of 2000", d, seen[d])
		}
	}
	if again := plan(2000, 100, 1, pictures); again[1999].at != load[1999].at {
		t.Error("the same seed gives another plan")
	}
}

// some are n samples whose error goes from 0 to n-1 ms.
func some(n, rows, batchRows int) (all []sample) {
	for i := range n {
		all = append(all, sample{rows: rows, batchRows: batchRows, predicted: 10 * time.Millisecond, actual: time.Duration(10+i) * time.Millisecond})
	}
	return all
}

func TestSummary(t *testing.T) {
	samples := append(some(100, 1, 3), some(10, 2, 8)...)
	samples = append(samples, sample{err: errs.New(errs.DeadlinePassed, "late")})
	var text strings.Builder
	if err := summarise(&text, []series{{engine: "e", sizes: []int{1, 2, 4, 8}, samples: samples}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| e | 4 | 100 | 33 | 10.000 | 59.000 | 0.000 | 49.000 | 98.000 | 99.0 % |",
		"| e | 8 | 10 | 2 | 10.000 | 14.000 | 0.000 | 4.000 | 9.000 | 90.0 % |",
		"110 of 111 requests were answered well, not: map[DEADLINE_PASSED:1]",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s lacks %s", text.String(), want)
		}
	}
	silent := series{engine: "e", sizes: []int{1}, samples: []sample{{rows: 1, batchRows: 1, actual: 1}}}
	if err := summarise(&text, []series{silent}); err == nil {
		t.Error("an answer that tells no prediction was taken")
	}
}

func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "orrery")
	if err := os.WriteFile(binary, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]string{{"-requests", "0"}, {"-rate", "0"}, {"more"}, {"-binary", "/nowhere/orrery"}} {
		if _, err := parse(append([]string{"-binary", binary}, bad...)); err == nil {
			t.Errorf("%q were taken", bad)
		}
	}
	if _, err := readPictures("../../models", "unheard-of"); err == nil {
		t.Error("a model whose answers are not known was taken")
	}
}

// build makes the binary to test, unless one is named.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	if given := os.Getenv("E2E_BINARY"); given != "" {
		return given
	}
	path := filepath.Join(t.TempDir(), "built")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "../../cmd/orrery")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the binary: %v\n%s", err, out)
	}
	return path
}

// TestShortForm sends a few hundred requests. How large the errors are is hardly
// its business, for the machine may be busy: but all must be told, for batches of
// several sizes, and half of the executions must be near what was predicted.
func TestShortForm(t *testing.T) {
	o, err := parse([]string{"-binary", build(t), "-models", "../../models", "-model", "fashion-mlp", "-requests", "600", "-rate", "200"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := summarise(os.Stdout, all); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		good, bad, err := s.answered()
		if err != nil {
			t.Fatal(err)
		}
		if len(good) < o.requests*9/10 || bad["wrong"] > 0 {
			t.Errorf("%s: %d of %d were answered well; the others: %v", s.engine, len(good), o.requests, bad)
		}
		found := map[int]bool{}
		for _, one := range good {
			found[s.size(one.batchRows)] = true
		}
		if len(found) < 3 {
			t.Errorf("%s: batches of the sizes %v alone", s.engine, found)
		}
		const patience = 5 * time.Millisecond // of a busy machine
		if l := lineOf(good); l.actual > 3*l.predicted+patience || l.predicted > 10*l.actual+patience {
			t.Errorf("%s: half took more than %v, and %v was predicted", s.engine, l.actual, l.predicted)
		}
	}
}

// TestTheTrailerTellsIt asks as a client of the Open Inference Protocol.
func TestTheTrailerTellsIt(t *testing.T) {
	o, err := parse([]string{"-binary", build(t), "-models", "../../models", "-model", "fashion-mlp"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStage(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(""); err != nil {
			t.Error(err)
		}
	}()
	to, err := s.realModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := rpc.Connect(s.cluster.Controllers[0].Addresses["inference"], rpc.DialTCP, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var trailer metadata.MD
	rows := s.pictures[:3]
	answer, err := inferencepb.NewGRPCInferenceServiceClient(conn).ModelInfer(t.Context(), to.request(rows), grpc.Trailer(&trailer))
	if err == nil {
		err = to.check(answer, rows)
	}
	if err != nil {
		t.Fatal(err)
	}
	timing := strings.Join(trailer.Get("orrery-timing"), "")
	for _, want := range []string{"queue=", " worker=", " engine=", " predicted=", " entry=", " rows=3"} {
		if !strings.Contains(timing, want) {
			t.Errorf("orrery-timing %q lacks %q", timing, want)
		}
	}
}
