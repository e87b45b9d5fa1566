//go:build linux

package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheSimulationIsLikeRealProcesses is the benchmark in short, with loose
// bounds: the machine may be busy.
func TestTheSimulationIsLikeRealProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	o := options{binary: os.Getenv("E2E_BINARY"), span: 5 * time.Second, seed: 1}
	if o.binary == "" {
		o.binary = filepath.Join(t.TempDir(), "built")
		command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", o.binary, "../../cmd/orrery")
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("build the binary: %v\n%s", err, out)
		}
	}
	all, err := measure(t.Context(), o, []load{{"60 %", 0.6}})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	t.Logf("as on a quiet machine: %v\n%s", summarise(&text, all), text.String())
	p := all[0]
	goodput, p99 := p.apart()
	if p.real.requests != p.simulated.requests || p.real.requests < 500 {
		t.Errorf("%d requests, simulated %d", p.real.requests, p.simulated.requests)
	}
	if math.Abs(goodput) > 0.15 {
		t.Errorf("goodput differs by %.1f %%", 100*goodput)
	}
	if p99.Abs() > p.real.p99/2 {
		t.Errorf("p99 differs by %v of %v", p99, p.real.p99)
	}
}

func TestBothWorldsGetTheSameRequests(t *testing.T) {
	o := options{span: 10 * time.Second, seed: 1}
	plan := load{"60 %", 0.6}.plan(o)
	if n := float64(len(plan)); math.Abs(n-0.6*ceiling*10) > 5*math.Sqrt(n) {
		t.Errorf("%v requests", n)
	}
	if lines := strings.Count(trace(plan), "\n"); lines != len(plan)+1 {
		t.Errorf("%d lines for %d requests", lines, len(plan))
	}
	if again := (load{"60 %", 0.6}).plan(o); again[len(again)-1] != plan[len(plan)-1] {
		t.Error("the same seed gives another plan")
	}
}

func TestSummary(t *testing.T) {
	world := func(goodput float64, p99 time.Duration) figures {
		return figures{requests: 1000, good: 990, goodput: goodput, p50: p99 / 2, p99: p99, batchRows: 2}
	}
	for _, test := range []struct {
		simulated figures
		want      string
	}{
		{world(102, 109*time.Millisecond), ""},
		{world(104, 100*time.Millisecond), "goodput differs by +4.0 %"},
		{world(100, 80*time.Millisecond), "p99 by -20ms"},
	} {
		var text strings.Builder
		err := summarise(&text, []pair{{load: load{name: "60 %"}, real: world(100, 100*time.Millisecond), simulated: test.simulated}})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test.simulated, err)
		}
		if !strings.Contains(text.String(), "| 60 % | real processes | 99.00 % | 100.0/s | 50.0 ms | 100.0 ms |") {
			t.Errorf("%s", text.String())
		}
	}
}

func TestReportsAreRead(t *testing.T) {
	f, err := parseReport([]byte(`{"lines":[{"runs":[{"total":{"requests":4,"good":3,"latency":{"p50_ms":2,"p99_ms":3}},"mean_batch_rows":2}]}]}`))
	if err != nil || f.requests != 4 || f.good != 3 || f.p99 != 3*time.Millisecond || f.batchRows != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := parseReport([]byte(`{"lines":[]}`)); err == nil {
		t.Error("an empty report was taken")
	}
}
