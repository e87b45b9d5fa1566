//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/netlab"
)

// unavailable says why there is no network of the tests' own; nil: there is one.
var unavailable error

func TestMain(m *testing.M) {
	os.Exit(netlab.MainAnyway(func(err error) int {
		unavailable = err
		return m.Run()
	}))
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
	o.loopback = unavailable != nil
	return o
}

func open(t *testing.T, o options) *book {
	t.Helper()
	b, err := bench.OpenBook[result](o.Results, o.Binary, o.SummaryOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &book{b, o}
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

// fakeCluster is one of workers that were never started.
func fakeCluster(names ...string) *devcluster.Cluster {
	c := &devcluster.Cluster{}
	for _, name := range names {
		c.Workers = append(c.Workers, &devcluster.Process{Name: name, Members: []string{name}})
	}
	return c
}
