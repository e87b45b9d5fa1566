//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/errs"
)

// TestMain lets the test's program be a busy process, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == spinCommand {
		os.Exit(spinMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestQuantilesOfLatencies(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var some, others latencies
	var all []time.Duration
	for i := range 10000 {
		d := time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			some.add(d)
		} else {
			others.add(d)
		}
	}
	some.merge(&others)
	slices.Sort(all)
	for _, share := range []float64{0.01, 0.5, 0.99, 1} {
		want := max(all[int(share*10000)-1], leastLatency)
		got := some.quantile(share)
		if got < want || float64(got) > latencyStep*1.0001*float64(want) {
			t.Errorf("quantile %v: %v, want %v", share, got, want)
		}
	}
	if some.n != 10000 || some.longest != all[9999] || (&latencies{}).quantile(0.5) != 0 {
		t.Errorf("%d times up to %v", some.n, some.longest)
	}
	var long latencies
	long.add(time.Hour)
	if got := long.quantile(0.5); got < 100*time.Second {
		t.Errorf("an hour counts as %v", got)
	}
}

func TestCountsByKind(t *testing.T) {
	total := &counts{}
	for range 2 {
		tally := newTally()
		tally.add(bench.Outcome{Took: time.Millisecond, Degraded: true})
		tally.add(bench.Outcome{Err: errs.New(errs.DeadlinePassed, "no answer came")})
		tally.add(bench.Outcome{Err: fmt.Errorf("%w: []", bench.ErrWrong)})
		tally.add(bench.Outcome{Err: bench.ErrCrowded})
		total.merge(tally.take())
		if n := tally.take().sent(); n != 0 {
			t.Errorf("taken twice: %d", n)
		}
	}
	if total.answered != 2 || total.degraded != 2 || total.late != 2 || total.wrong != 2 || total.failed != 2 || total.loss() != 0.75 {
		t.Errorf("%+v", total)
	}
	if k := total.kinds[string(errs.DeadlinePassed)]; k.n != 2 || !strings.Contains(k.first, "no answer came") || len(total.kinds) != 3 {
		t.Errorf("kinds %v", total.kinds)
	}
}

func TestClimb(t *testing.T) {
	tests := []struct {
		name              string
		start, limit, not int // not: how many tries fail by themselves
		tries             int
		want, least       int
		fails             string
	}{
		{name: "found", start: 1000, limit: 4200, tries: 24, want: 4200, least: 3900},
		{name: "in spite of neighbours", start: 1000, limit: 4200, not: 1, tries: 24, want: 4200, least: 3900},
		{name: "begun too high", start: 1000, limit: 900, tries: 24, fails: "-start-rate"},
		{name: "begun too low", start: 1, limit: 1 << 40, tries: 24, fails: "above"},
	}
	for _, test := range tests {
		not, tried := test.not, 0
		got, err := climb(test.start, test.tries, func(rate int) (bool, error) {
			tried++
			if not--; not >= 0 {
				return false, nil
			}
			return rate <= test.limit, nil
		})
		if test.fails != "" {
			if err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s: %v", test.name, err)
			}
		} else if err != nil || got > test.want || got < test.least {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
		if tried > test.tries {
			t.Errorf("%s: %d tries", test.name, tried)
		}
	}
	stop := errors.New("stop")
	if _, err := climb(1, 9, func(int) (bool, error) { return false, stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// some are figures of a phase of ten seconds.
func some(name string, rate int) figures {
	f := figures{phase: phase{name: name, rate: rate}, took: 10 * time.Second}
	for range rate * 10 {
		f.counts.add(bench.Outcome{Took: time.Millisecond})
	}
	return f
}

func TestFaultsOfARate(t *testing.T) {
	good, lossy, slow, short := some("", 100), some("", 100), some("", 100), some("", 100)
	for range 2 {
		lossy.counts.add(bench.Outcome{Err: bench.ErrCrowded})
	}
	for range 20 {
		slow.counts.add(bench.Outcome{Took: time.Second})
	}
	short.rate = 110
	for want, f := range map[string]figures{"": good, "not answered": lossy, "p99": slow, "% of the rate": short} {
		if got := f.fault(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestSummaryDemandsNoElection(t *testing.T) {
	o := options{deadline: 3 * time.Second}
	calm, elected, lossy := some("busy", 100), some("load", 100), some("load", 100)
	calm.changes = changes{stood: 2}
	elected.changes = changes{terms: 2, leaders: 1, stood: 3}
	for range 5 {
		lossy.counts.add(bench.Outcome{Err: errs.New(errs.NoLeader, "there is none")})
	}
	var text strings.Builder
	if err := summarise(&text, o, []figures{calm}); err != nil {
		t.Error(err)
	}
	if want := "| busy | 10s | 100 | 0 | 0 | 0 | 2 | 0 | 0 / 1000 | 0 | 1ms | 1ms | 1ms |"; !strings.Contains(text.String(), want) {
		t.Errorf("%s lacks %s", text.String(), want)
	}
	text.Reset()
	err := summarise(&text, o, []figures{elected, lossy})
	if err == nil || !strings.Contains(err.Error(), "load: 2 false elections") || !strings.Contains(err.Error(), "0.50 %") {
		t.Error(err)
	}
	for _, want := range []string{"| 2 FALSE | 2 | 1 | 1 |", "5 × NO_LEADER; the first sent"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s lacks %s", text.String(), want)
		}
	}
}

func TestChangesAreSeen(t *testing.T) {
	term := "7"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# HELP x\norrery_raft_term %s\n", term)
	}))
	defer server.Close()
	log := filepath.Join(t.TempDir(), "log")
	before := "2026-01-02T15:04:00.000Z [INFO]  leading: term=7\n"
	if err := os.WriteFile(log, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &devcluster.Process{Name: "c1", Log: log, Addresses: map[string]string{"http": strings.TrimPrefix(server.URL, "http://")}}
	var lines []string
	w, err := startWatch(t.Context(), &devcluster.Cluster{Controllers: []*devcluster.Process{p}}, func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.look(t.Context()); err != nil || c != (changes{}) {
		t.Errorf("%+v, %v before anything happened", c, err)
	}
	term = "9"
	after := before + `2026-01-02T15:04:05.251Z [INFO]  raft: entering candidate state: node="Node at x" term=8
2026-01-02T15:04:05.900Z [INFO]  raft: entering candidate state: node="Node at x" term=9
2026-01-02T15:04:05.960Z [INFO]  leading: term=9 after=1ms
2026-01-02T15:04:06.960Z [WARN]  worker disconnected: worker=w1
`
	if err := os.WriteFile(log, []byte(after), 0o644); err != nil {
		t.Fatal(err)
	}
	want := changes{terms: 2, leaders: 1, stood: 2, lost: 1}
	if c, err := w.look(t.Context()); err != nil || c != want || c.elections() != 2 {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
	if _, err := w.look(t.Context()); err != nil || len(lines) != 4 || lines[0] != `15:04:05.251 c1 [INFO]  raft: entering candidate state: node="Node at x" term=8` {
		t.Errorf("%v, told %q", err, lines)
	}
}

func TestSpinnersAreBusyUntilTheyAreEnded(t *testing.T) {
	s, err := startSpinners(1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	pid := s[0].Process.Pid
	for deadline := time.Now().Add(20 * time.Second); bench.ProcessTime(pid) < 50*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Error("it is not busy")
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if s, err = startSpinners(1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := s[0].Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := spinMain([]string{"0", "1h"}); err != 0 {
		t.Errorf("without its parent: status %d", err)
	}
}

func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "orrery")
	if err := os.WriteFile(binary, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]string{
		{"-phases", "busy,nothing"}, {"-phases", "load"}, {"-busy", "0"}, {"-spinners", "0"}, {"more"}, {"-set", "x"}, {"-binary", "/nowhere/orrery"},
	} {
		if _, err := parse(append([]string{"-binary", binary}, bad...)); err == nil {
			t.Errorf("%q were taken", bad)
		}
	}
	o, err := parse([]string{"-binary", binary, "-phases", "load", "-limit", "100", "-library", "-set", "log.level=debug"})
	if err != nil || o.runs("busy") || o.keys["raft.election_timeout"] != "1s" || o.keys["log.level"] != "debug" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestShortRun runs the program as a user would, for seconds.
func TestShortRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	binary := os.Getenv("E2E_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "built")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "../../cmd/orrery")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the binary: %v\n%s", err, out)
		}
	}
	logs := t.TempDir()
	o, err := parse([]string{"-binary", binary, "-phases", "busy,load", "-busy", "2s", "-load", "2s", "-every", "1s", "-spinners", "1",
		"-limit", "200", "-logs", logs})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob("/dev/shm/orrery-steady-*")
	// What the figures are is not this test's business: the machine may be busy.
	if err := run(o); err != nil && !strings.Contains(err.Error(), "false election") && !strings.Contains(err.Error(), "in time") {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(logs, "c1.log")); err != nil || len(text) == 0 {
		t.Errorf("no log: %v", err)
	}
	if after, _ := filepath.Glob("/dev/shm/orrery-steady-*"); len(after) > len(before) {
		t.Errorf("left: %v", after)
	}
}
