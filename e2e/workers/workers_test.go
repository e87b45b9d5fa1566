//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/netlab"
)

// available says that there is a network of the tests' own.
var available error

func TestMain(m *testing.M) {
	status, err := netlab.Main(m.Run)
	if errors.Is(err, netlab.ErrUnavailable) {
		available = err
		status = m.Run()
	} else if err != nil {
		fmt.Println(err)
	}
	os.Exit(status)
}

// testOptions are those of a book of its own.
func testOptions(t *testing.T, binary string) options {
	t.Helper()
	dir := t.TempDir()
	if binary == "" {
		binary = filepath.Join(dir, "orrery")
		if err := os.WriteFile(binary, []byte("first"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o, err := parse([]string{"-binary", binary, "-results", filepath.Join(dir, "results"), "-trials", "2", "-span", "1s", "-crowd", "20", "-rate", "500"})
	if err != nil {
		t.Fatal(err)
	}
	o.loopback = available != nil
	return o
}

func open(t *testing.T, o options) *book {
	t.Helper()
	b, err := openBook(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// rowNamed is a row with what a busy machine needs.
func rowNamed(t *testing.T, name string) row {
	t.Helper()
	for _, r := range rows() {
		if r.name == name {
			r.deadline = 10 * time.Second
			return r
		}
	}
	t.Fatalf("no row %s", name)
	return row{}
}

func TestTheLogsOfWorkersAreHeard(t *testing.T) {
	stamp, n := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), 0
	line := func(text string) string {
		n++
		return stamp.Add(time.Duration(n)*time.Millisecond).Format("2006-01-02T15:04:05.000Z07:00") + " [DEBUG] worker: " + text + "\n"
	}
	opened := func(epoch, term int) string {
		return line(fmt.Sprintf("session opened: session=S leader=c1 epoch=%d term=%d", epoch, term))
	}
	executed := func(epoch, term int) string {
		return line(fmt.Sprintf(`action executed: kind=infer action=7 model=1 leader=c1 epoch=%d term=%d session=S`, epoch, term))
	}
	tests := []struct {
		name string
		log  string
		want testimony
	}{
		{"an orderly succession", executed(1, 2) + opened(1, 3) + executed(1, 3) + executed(1, 3), testimony{executed: 2}},
		{"executed after the newer session was opened", executed(1, 2) + opened(1, 3) + executed(1, 2) + executed(1, 3), testimony{late: 1, executed: 1}},
		{"executed after the newer one's action", executed(1, 3) + executed(1, 2), testimony{late: 1}},
		{"a newer epoch with a lower term", executed(1, 9) + opened(2, 3) + executed(2, 3), testimony{executed: 1}},
		{"an older epoch with a higher term", opened(2, 3) + executed(1, 9), testimony{late: 1}},
		{"a late session is no execution", opened(1, 3) + opened(1, 2), testimony{lateSessions: 1}},
		{"refused", opened(1, 3) + line("session refused: leader=c1 cluster=x epoch=1 term=2") +
			line("action refused: code=stale kind=infer action=7 model=1 leader=c1 epoch=1 term=2"), testimony{refused: 1}},
		{"nothing of it", line("model loaded: model=1") + "nonsense\n", testimony{}},
	}
	for _, test := range tests {
		path := filepath.Join(t.TempDir(), "log")
		old := executed(8, 8) // before the mark
		if err := os.WriteFile(path, []byte(old+test.log), 0o644); err != nil {
			t.Fatal(err)
		}
		got := hear(bench.Mark{Path: path, Offset: int64(len(old))})
		if len(got.lines) != test.want.late {
			t.Errorf("%s: lines %q", test.name, got.lines)
		}
		got.lines = nil
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestSendsAreNotedByWorker(t *testing.T) {
	s := &sends{rises: map[string][]time.Time{}}
	start := time.Now().Add(-time.Second)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	both := []string{"w1", "w2"}
	figures := func(a, b float64) map[string]float64 { return map[string]float64{counter("w1"): a, counter("w2"): b} }
	s.note(at(0), both, nil, figures(5, 5)) // what was before the first look is no rise
	s.note(at(10), both, figures(5, 5), figures(6, 5))
	s.note(at(20), both, figures(6, 5), figures(6, 5))
	s.note(at(30), both, figures(6, 5), figures(8, 9))
	s.note(at(40), both, figures(8, 9), map[string]float64{counter("w2"): 10})
	for _, test := range []struct {
		worker   string
		from, to int
		want     int
	}{{"w1", -1, 100, 31}, {"w1", 5, 25, 5}, {"w1", 31, 100, 0}, {"w2", -1, 100, 41}, {"w2", -1, 30, 0}, {"w3", -1, 100, 0}} {
		if got := s.lastAfter(at(test.from), at(test.to), test.worker); got != time.Duration(test.want)*time.Millisecond {
			t.Errorf("%+v: last after %v", test, got)
		}
	}
	if got := s.lastAfter(at(0), at(100), both...); got != 40*time.Millisecond {
		t.Errorf("the last of both after %v", got)
	}
	if got, err := s.awaitFirst(t.Context(), "w1", at(10)); got != 20*time.Millisecond || err != nil {
		t.Errorf("the first after %v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.awaitFirst(ended, "w1", at(30)); err == nil {
		t.Error("something was sent that was not")
	}
	if !s.all(both, at(-1)) || s.all(both, at(31)) || s.all([]string{"w1", "w3"}, at(-1)) {
		t.Error("all")
	}
}

func TestWhatTheLeaderSaysOfWorkers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	fault := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	text := `2026-01-02T15:04:05.100Z [WARN]  coordinator: worker disconnected: term=2 worker=w1 cause="EOF" as=died
2026-01-02T15:04:05.200Z [INFO]  coordinator: worker connected: term=2 worker=w1 incarnation=A models=1
2026-01-02T15:04:05.300Z [WARN]  coordinator: worker disconnected: term=2 worker=w2-10 cause="no worker=w3 heartbeat" as=silent
2026-01-02T15:04:05.400Z [WARN]  coordinator: worker disconnected: term=2 worker=w1 cause=closed as=silent
2026-01-02T15:04:05.500Z [INFO]  coordinator: worker connected: term=2 worker=w1 incarnation=A models=1
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	trial := trial{log: bench.Mark{Path: path}, fault: fault}
	for _, test := range []struct {
		workers []string
		after   time.Duration
		ok      bool
	}{
		{[]string{"w1"}, 100 * time.Millisecond, true}, {[]string{"w2-10", "w1"}, 300 * time.Millisecond, true},
		{[]string{"w1", "w2-1"}, 100 * time.Millisecond, false}, {[]string{"w3"}, 0, false},
	} {
		if after, ok := trial.taken(test.workers...); after != test.after || ok != test.ok {
			t.Errorf("%v: after %v, %v", test.workers, after, ok)
		}
	}
	if n := trial.connected("w1", fault.Add(400*time.Millisecond)); n != 1 {
		t.Errorf("connected %d times", n)
	}
}

func TestTheNextWorkerIsTheOneLeftAloneLongest(t *testing.T) {
	s := &stage{hit: map[string]int{}, cluster: fakeCluster("w1", "w2", "w3")}
	var got []string
	for _, names := range [][]string{{"w2", "w3"}, {"w2", "w3"}, {"w1", "w2", "w3"}, {"w2", "w3"}, {"w1", "w3"}} {
		got = append(got, s.next(names...).Name)
	}
	if want := []string{"w2", "w3", "w1", "w2", "w3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := s.anyWorker().Name; got != "w1" {
		t.Errorf("any: %s", got)
	}
}

func TestSummary(t *testing.T) {
	o := testOptions(t, "")
	o.rows = []row{rowNamed(t, "kill"), rowNamed(t, "freeze"), rowNamed(t, "thaw"), rowNamed(t, "cut")}
	b := open(t, o)
	add := func(r row, trial int, figures map[string]float64, requests bench.Requests) {
		t.Helper()
		if err := b.Add(result{Head: bench.Head{Print: b.print(r), Row: r.name, Trial: trial}, Figures: figures, Requests: requests}); err != nil {
			t.Fatal(err)
		}
	}
	for i, ms := range []float64{100, 120, 300} {
		add(o.rows[0], i, map[string]float64{"unscheduled_ms": ms, "copies_beyond_ms": 3000}, bench.Requests{Sent: 1000})
	}
	add(o.rows[1], 1, map[string]float64{"unregistered": 1}, bench.Requests{Sent: 500, Failed: 1, Wrong: 1, Errors: []string{"it was wrong"}})
	add(o.rows[2], 1, map[string]float64{"late": 2, "stale": 60}, bench.Requests{Sent: 10, Failed: 3})
	add(o.rows[2], 2, map[string]float64{"stale": 50}, bench.Requests{Sent: 10})
	var text strings.Builder
	err := summarise(&text, b)
	for _, want := range []string{
		"| SIGKILL of a worker | 3 | no new work after | 120 ms | 300 ms | ≤ 200 ms | ok at the p50 only |",
		"| | | copies replaced, beyond their load time, after | 3.00 s | 3.00 s | ≤ 2.00 s | MISSED |",
		"| | | requests failed (deadline 10s) | 0 / 3000 | 0 | 0 | ok |",
		"| | | gone from the registry | 1 | 1 | ≤ 0 | MISSED |",
		"| | | requests failed (deadline 10s) | 2 / 500 | 2 | 0 | MISSED |",
		"| | | answered STALE | 55 | 60 | ≥ 100 in all | 110 in all |",
		"| | | requests failed (deadline 10s) | 3 / 20 | 3 |  |  |",
		"- freeze, trial 1: 1 answers were WRONG",
		"- freeze, trial 1: it was wrong",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, text.String())
		}
	}
	for _, want := range []string{"row freeze: 2 of 500", "row freeze, gone from the registry", "row thaw, actions of a succeeded leader executed: 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("demands lack %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "row kill") || strings.Contains(text.String(), "cut off") {
		t.Errorf("%v in\n%s", err, text.String())
	}
}

func TestTrialsOfOtherOptionsDoNotCount(t *testing.T) {
	o := testOptions(t, "")
	b, r := open(t, o), o.rows[0]
	if err := b.Add(result{Head: bench.Head{Print: b.print(r), Trial: 1}}); err != nil {
		t.Fatal(err)
	}
	if n := len(open(t, o).Trials(b.print(r))); n != 1 {
		t.Errorf("%d trials are kept", n)
	}
	other := []func(*options){func(o *options) { o.Rate++ }, func(o *options) { o.span++ }, func(o *options) { o.Keys = map[string]string{"a": "b"} }}
	for i, change := range other {
		changed := o
		change(&changed)
		if again := open(t, changed); len(again.Trials(again.print(r))) != 0 {
			t.Errorf("change %d: the trial counts", i)
		}
	}
}

func TestFlags(t *testing.T) {
	binary := testOptions(t, "").Binary
	for _, bad := range [][]string{
		{"-trials", "0"}, {"-rows", "kill,nothing"}, {"more"}, {"-span", "1ms"}, {"-crowd", "1"}, {"-binary", "/nowhere/orrery"},
	} {
		if _, err := parse(append([]string{"-binary", binary}, bad...)); err == nil {
			t.Errorf("%q were taken", bad)
		}
	}
	o, err := parse([]string{"-binary", binary, "-rows", "thaw,kill"})
	if err != nil || len(o.rows) != 2 || o.rows[0].name != "kill" || o.Rate != defaultRate {
		t.Errorf("%+v, %v", o, err)
	}
	if share := float64(defaultRate) / ceiling; share < 0.59 || share > 0.61 {
		t.Errorf("the load is %.2f of what the workers can do", share)
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

// stageFor opens a stage for a row.
func stageFor(t *testing.T, o options, r row) *stage {
	t.Helper()
	dir, err := bench.MemoryDir("workers-test")
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStage(t.Context(), o, r, filepath.Join(dir, "cluster"))
	if err != nil {
		t.Fatal(errors.Join(err, os.RemoveAll(dir)))
	}
	t.Cleanup(func() {
		if err := errors.Join(s.close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// try makes one trial of a row. What the figures are is hardly the tests'
// business, for the machine may be busy: but there must be no mistake, and the
// fault must have been seen.
func try(t *testing.T, o options, s *stage, r row, trial int) result {
	t.Helper()
	one := result{Head: bench.Head{Row: r.name, Trial: trial}, Figures: map[string]float64{}}
	if err := runTrial(t.Context(), o, s, r, &one); err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	t.Logf("%s: %v, %d of %d failed, longest %.0f ms", r.name, one.Figures, one.Bad(), one.Sent, one.LatencyMax)
	if one.Invalid != "" || !one.Whole || len(one.Notes) > 0 || one.Sent < o.Rate || one.Bad() > 0 {
		t.Fatalf("%s: %+v", r.name, one)
	}
	for _, m := range r.measures {
		x, ok := one.Figures[m.name]
		if !ok || m.must && x > m.most || m.bounded && !m.must && x > patience*m.most {
			t.Errorf("%s, %s: %v (there: %v)", r.name, m.title, x, ok)
		}
	}
	return one
}

// patience is how many times slower than the target a busy machine may be.
const patience = 10

// TestShortForm runs short trials on real processes, on loopback where there are
// no networks to cut.
func TestShortForm(t *testing.T) {
	o := testOptions(t, build(t))
	t.Run("one cluster", func(t *testing.T) { testOneCluster(t, o) })
	t.Run("cut", func(t *testing.T) {
		if available != nil {
			t.Skip(available)
		}
		r := rowNamed(t, "cut")
		r.away = 3 * time.Second
		try(t, o, stageFor(t, o, r), r, 1)
	})
	t.Run("crowd", func(t *testing.T) {
		if available != nil {
			t.Skip(available)
		}
		if help, err := exec.Command(o.Binary, "workerd", "--help").Output(); err != nil || !strings.Contains(string(help), "--count") {
			t.Skipf("this binary can't run many workers in one process (%v)", err)
		}
		r := rowNamed(t, "crowd")
		try(t, o, stageFor(t, o, r), r, 1)
	})
	t.Run("a run goes on where it stopped", func(t *testing.T) { testResumption(t, o) })
}

// testOneCluster takes one cluster through the rows that need no network to cut.
func testOneCluster(t *testing.T, o options) {
	kill, freeze, thaw, request := rowNamed(t, "kill"), rowNamed(t, "freeze"), rowNamed(t, "thaw"), rowNamed(t, "poison-request")
	freeze.away, thaw.away = 2*time.Second, 2*time.Second
	s := stageFor(t, o, thaw) // its workers are witnesses
	try(t, o, s, kill, 1)
	try(t, o, s, freeze, 1)
	try(t, o, s, request, 1)
	for n := range 2 {
		if got := try(t, o, s, thaw, n); got.Figures["executed"] == 0 {
			t.Error("no successor had anything executed")
		}
	}
}

// testResumption runs the benchmark as a user would, twice.
func testResumption(t *testing.T, o options) {
	o.rows, o.Trials = []row{rowNamed(t, "poison-model")}, 1
	for range 2 {
		if err := run(o); err != nil {
			t.Log(err) // what the figures are is not this test's business
		}
	}
	if b := open(t, o); len(b.Trials(b.print(o.rows[0]))) != 1 || len(b.Lines) != 1+len(b.Invalid(b.print(o.rows[0]))) {
		t.Errorf("lines %+v", b.Lines)
	}
}
