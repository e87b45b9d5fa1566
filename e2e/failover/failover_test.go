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

	"github.com/orrery-project/orrery/e2e/bench"
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

func TestGap(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	tests := []struct {
		name           string
		acks           []int
		from, to       int
		clip           bool
		longest, ended int
	}{
		{"across the fault", []int{0, 90, 500, 510}, 100, 505, false, 410, 500},
		{"counted from its begin", []int{0, 90, 500, 510}, 100, 505, true, 400, 500},
		{"a longer one before and after does not count", []int{0, 1000, 1100, 9000}, 1010, 1090, false, 100, 1100},
		{"never again", []int{0, 90}, 100, 2000, false, 1910, 2000},
		{"never at all", nil, 100, 2000, false, 1900, 2000},
		{"the later of two", []int{95, 110, 300, 700, 750}, 100, 740, false, 400, 700},
		{"at the very begin", []int{100, 300}, 100, 200, false, 200, 300},
	}
	for _, test := range tests {
		var acks []time.Time
		for _, ms := range test.acks {
			acks = append(acks, at(ms))
		}
		longest, ended := gap(acks, at(test.from), at(test.to), test.clip)
		if longest != time.Duration(test.longest)*time.Millisecond || !ended.Equal(at(test.ended)) {
			t.Errorf("%s: %v until %v, want %d ms until %d ms", test.name, longest, ended.Sub(start), test.longest, test.ended)
		}
	}
}

func TestTimelineIsReadFromLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	old := "2026-01-02T15:04:00.000Z [INFO]  raft: entering leader state: leader=x\n"
	text := old + `2026-01-02T15:04:05.250Z [WARN]  raft: heartbeat timeout reached, starting election
2026-01-02T15:04:05.251Z [INFO]  raft: entering candidate state: node="Node at x" term=3
not a line of a log
2026-01-02T15:04:05.900Z [INFO]  raft: entering candidate state: node="Node at x" term=3
2026-01-02T15:04:05.950Z [INFO]  raft: entering leader state: leader=x
2026-01-02T15:04:05.960Z [INFO]  leading: term=3 after=1ms
2026-01-02T15:04:07.000Z [INFO]  no longer leading: term=3
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	from, err := time.Parse(time.RFC3339, "2026-01-02T15:04:05Z")
	if err != nil {
		t.Fatal(err)
	}
	var p part
	p.read([]bench.Mark{{Path: path, Offset: int64(len(old))}, {Path: filepath.Join(t.TempDir(), "none")}}, from)
	if p.Stood != 251 || p.Elected != 950 || p.Leading != 960 || p.Candidacies != 2 {
		t.Errorf("%+v", p)
	}
}

// testOptions are those of a book of its own.
func testOptions(t *testing.T) options {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "orrery")
	if err := os.WriteFile(binary, []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"-binary", binary, "-results", filepath.Join(dir, "results"), "-trials", "2"})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, o options) *book {
	t.Helper()
	b, err := bench.OpenBook[result](o.Results, o.Binary, o.SummaryOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &book{b, o.Rate}
}

func TestBookIsResumed(t *testing.T) {
	o := testOptions(t)
	r, v := o.rows[0], variants(o)[0]
	b := open(t, o)
	for _, one := range []result{{Head: bench.Head{Trial: 2}, Gap: 5}, {Head: bench.Head{Trial: 1, Invalid: "no load"}}, {Head: bench.Head{Trial: 1}, Gap: 7}} {
		one.Print, one.Row, one.Variant = b.print(r, v), r.name, v.name
		if err := b.Add(one); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, o)
	got := again.trials(r, v)
	if len(got) != 2 || got[0].Gap != 7 || got[1].Gap != 5 || !slices.Equal(again.invalid(r, v), []string{"no load"}) {
		t.Errorf("trials %v, invalid %v", got, again.invalid(r, v))
	}
	if n := len(again.trials(r, variants(o)[1])) + len(again.trials(o.rows[1], v)); n != 0 {
		t.Errorf("another variant or row has %d trials", n)
	}
	other := o
	other.Rate++
	if n := len(open(t, other).trials(r, v)); n != 0 {
		t.Errorf("%d trials of another rate count", n)
	}
	other = o
	other.Keys = map[string]string{"raft.commit_timeout": "9ms"}
	if n := len(again.trials(r, variants(other)[0])); n != 0 {
		t.Errorf("%d trials of another configuration count", n)
	}
	if err := os.WriteFile(o.Binary, []byte("second"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := len(open(t, o).trials(r, v)); n != 0 {
		t.Errorf("%d trials of another binary count", n)
	}
	if err := os.WriteFile(o.Results, []byte("{}\nnonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := bench.OpenBook[result](o.Results, o.Binary, false); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestBookAfterACutLine(t *testing.T) {
	o := testOptions(t)
	if err := os.WriteFile(o.Results, []byte(`{"row":"kill"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	b := open(t, o)
	if err := b.Add(result{Head: bench.Head{Row: "term"}}); err != nil {
		t.Fatal(err)
	}
	if got := open(t, o).Lines; len(got) != 2 || got[1].Row != "term" {
		t.Errorf("lines %v", got)
	}
}

func TestSummary(t *testing.T) {
	o := testOptions(t)
	o.rows = slices.DeleteFunc(o.rows, func(r row) bool { return r.name != "kill" && r.name != "quorum" && r.name != "eio" })
	b := open(t, o)
	ours, library := variants(o)[0], variants(o)[1]
	add := func(r row, v variant, one result) {
		t.Helper()
		one.Print, one.Row, one.Variant, one.Recovered, one.Whole = b.print(r, v), r.name, v.name, true, true
		if err := b.Add(one); err != nil {
			t.Fatal(err)
		}
	}
	kill, quorum, eio := o.rows[0], o.rows[1], o.rows[2]
	for i, gap := range []float64{300, 310, 2000} {
		add(kill, ours, result{Head: bench.Head{Trial: i}, Gap: gap, WorstGap: gap, Requests: bench.Requests{Sent: 1000}, Parts: []part{{Gap: gap, Stood: 1500, Elected: 1900, Acknowledged: 2000, Idle: 3}}})
		add(kill, library, result{Head: bench.Head{Trial: i}, Gap: 10 * gap, Requests: bench.Requests{Sent: 1000, Failed: 1}})
	}
	add(quorum, ours, result{Gap: 1600, Requests: bench.Requests{Sent: 1000, Failed: 1, Degraded: 700}})
	add(eio, ours, result{Gap: 200, Requests: bench.Requests{Sent: 1000, Failed: 1}, Exit: "exit status 4"})
	var text strings.Builder
	err := summarise(&text, o, b)
	for _, want := range []string{
		"| SIGKILL leader | 3 | 310 ms | 2.00 s | ≤ 400 ms | ok | 310 ms | 2.00 s | 0 / 3000 (deadline 3s) | 0 ms | 3.10 s | 20.00 s | 3 / 3000 | 10.0 × |",
		"| two of three killed, 10 s, then back | 1 | 1.60 s | 1.60 s | ≤ 1.50 s | MISSED |",
		"1 / 1000 (deadline 3s) |",
		"1 / 1000 (deadline 10s) MISSED |",
		"kill, orrery: trial 2 took 2.00 s, over 3 times the p50: a survivor stood after 1.50 s, elected after 1.90 s, led not logged, acknowledged after 2.00 s",
		"CPU idle 3 %",
		"exit status 4 1 times",
		"700 of 999 answers were marked degraded",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, text.String())
		}
	}
	if err == nil || !strings.Contains(err.Error(), "row eio") || strings.Contains(err.Error(), "row kill") || strings.Contains(err.Error(), "row quorum") {
		t.Errorf("demands: %v", err)
	}
}

func TestDemands(t *testing.T) {
	tests := []struct {
		name string
		row  row
		one  result
		want string
	}{
		{"all answered", row{share: 1}, result{Requests: bench.Requests{Sent: 10}}, ""},
		{"one failed", row{share: 1}, result{Requests: bench.Requests{Sent: 10, Failed: 1}}, "none may"},
		{"one wrong", row{share: 1}, result{Requests: bench.Requests{Sent: 10, Wrong: 1}}, "none may"},
		{"share kept", row{share: 0.9}, result{Requests: bench.Requests{Sent: 10, Failed: 1}}, ""},
		{"share not kept", row{share: 0.9}, result{Requests: bench.Requests{Sent: 10, Failed: 2}}, "80.00 %"},
		{"marked", row{share: 0.9, degraded: true}, result{Requests: bench.Requests{Sent: 10, Degraded: 1}}, ""},
		{"not marked", row{share: 0.9, degraded: true}, result{Requests: bench.Requests{Sent: 10}}, "degraded"},
	}
	for _, test := range tests {
		err := demand(test.row, column{test.one})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestFlags(t *testing.T) {
	binary := testOptions(t).Binary
	for _, bad := range [][]string{
		{"-trials", "0"}, {"-rate", "1"}, {"-rows", "kill,nothing"}, {"more"}, {"-set", "x"}, {"-binary", "/nowhere/orrery"},
	} {
		if _, err := parse(append([]string{"-binary", binary}, bad...)); err == nil {
			t.Errorf("%q were taken", bad)
		}
	}
	o, err := parse([]string{"-binary", binary, "-rows", "eio,kill", "-set", "log.level=debug"})
	if err != nil || len(o.rows) != 2 || o.rows[0].name != "kill" || variants(o)[1].keys["log.level"] != "debug" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestOneTrialOfARow runs the benchmark as a user would, for one trial.
func TestOneTrialOfARow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	if unavailable != nil {
		t.Skip(unavailable)
	}
	o := testOptions(t)
	o.Binary = os.Getenv("E2E_BINARY")
	if o.Binary == "" {
		o.Binary = filepath.Join(t.TempDir(), "built")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", o.Binary, "../../cmd/orrery")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the binary: %v\n%s", err, out)
		}
	}
	o.Trials, o.baseline, o.Rate = 1, false, 100
	o.rows = o.rows[:1]
	before, _ := filepath.Glob(filepath.Join(os.TempDir(), "orrery-failover-*"))
	// What the figures are is not this test's business: the machine may be busy.
	if err := run(o); err != nil {
		t.Log(err)
	}
	trials := open(t, o).trials(o.rows[0], variants(o)[0])
	if len(trials) != 1 || !trials[0].Recovered || !trials[0].Whole || trials[0].Gap <= 0 || trials[0].Sent < 100 ||
		len(trials[0].Parts) != 1 || trials[0].Parts[0].Elected == 0 {
		t.Errorf("trials %+v", trials)
	}
	if after, _ := filepath.Glob(filepath.Join(os.TempDir(), "orrery-failover-*")); len(after) > len(before) {
		t.Errorf("left: %v", after)
	}
}
