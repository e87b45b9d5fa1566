package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// realLine is the one line of the tables that differs from run to run.
var realLine = regexp.MustCompile(`(?m)^In real time:.*\n`)

func simulateOK(t *testing.T, line string) string {
	t.Helper()
	o := execute(t, nil, nil, append([]string{"simulate"}, strings.Fields(line)...)...)
	if o.status != 0 || o.err != "" {
		t.Fatalf("simulate %s: status %d, %s", line, o.status, o.err)
	}
	return o.out
}

func TestSimulatedTables(t *testing.T) {
	var all strings.Builder
	for _, line := range []string{
		"--devices 2 --models 3 --load 60 --duration 5s --fail w1@2s+1s --new-leader 4s",
		"--load 50,95 --slo 50ms,100ms --seeds 2 --duration 5s --compare edf",
		"--experiment 6.4 --duration 5s",
		"--experiment tenants --duration 3s",
		"--experiment lost --duration 6s --load 60",
		"--find-capacity 99 --duration 5s --slo 50ms,100ms",
		"--closed 16 --models 2 --slo 0s --duration 5s --warmup 1s",
	} {
		all.WriteString("$ orrery simulate " + line + "\n" + realLine.ReplaceAllString(simulateOK(t, line), "") + "\n")
	}
	golden(t, "simulate.txt", all.String())
}

func TestSimulatedJSON(t *testing.T) {
	var got struct {
		Simulated bool
		Lines     []struct {
			Policy string
			Runs   []map[string]any
		}
	}
	parse := func(text string) {
		t.Helper()
		got.Lines = nil
		if err := json.Unmarshal([]byte(text), &got); err != nil || !got.Simulated {
			t.Fatalf("%v in %s", err, text)
		}
	}
	parse(simulateOK(t, "--rate 100 --duration 2s -o json"))
	run := got.Lines[0].Runs[0]
	for _, key := range []string{"total", "models", "tenants", "devices", "series", "timeline", "policy", "seed", "decisions"} {
		if run[key] == nil {
			t.Errorf("the JSON lacks %s", key)
		}
	}
	parse(simulateOK(t, "--load 10,20 --seeds 2 --duration 1s -o json"))
	if len(got.Lines) != 2 || len(got.Lines[1].Runs) != 2 || got.Lines[0].Runs[0]["series"] != nil {
		t.Errorf("%d lines", len(got.Lines))
	}
}

func TestSimulatedPageNeedsNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.html")
	simulateOK(t, "--load 50,110 --duration 3s --devices 2 --html "+path)
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, want := range []string{"<svg", "Simulated", "answered in time, mean of all seeds", "latency of what was answered", "what each device did", "w2/0", "</html>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "ZgotmplZ", "NaN", "src="} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if len(page) > 1<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

func TestTheSampleScenarioIsPlayed(t *testing.T) {
	out := simulateOK(t, "--scenario ../../configs/scenario.yaml")
	for _, want := range []string{"two kinds of devices", "w1 dies", "a leader comes", "bursts", "spare/0", "TENANT"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
}

func TestAScenarioPinsModels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scenario.yaml")
	if err := os.WriteFile(path, []byte(`
models: [{name: kept, profile: resnet50_v2, pinned: 1}, {name: other, copies: 4, profile: resnet50_v2}]
workers: [{name: w, pages: 14}]
workloads: [{name: all, arrivals: poisson, rate: 50, start: 1s}]
`), 0o644); err != nil {
		t.Fatal(err)
	}
	out := simulateOK(t, "--scenario "+path)
	// The seventh column tells of cold starts.
	if !regexp.MustCompile(`(?m)^kept +\d+ +100 % +\d+ +0 +0 +0 +0 `).MatchString(out) {
		t.Errorf("the pinned model was cold:\n%s", out)
	}
	if !regexp.MustCompile(`(?m)^other-1 +\d+ +100 % +\d+ +0 +0 +0 +[1-9]`).MatchString(out) {
		t.Errorf("no other model was cold: there was room:\n%s", out)
	}
}

func TestTracesArePlayed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain.csv", "seconds,model\n0.5,0\n1,1\n1,1\n")
	day := write("day.csv", "HashOwner,HashApp,HashFunction,Trigger,1,2\na,b,c,http,600,0\na,b,d,http,60,6\n")
	scenario := write("scenario.yaml", `
models: [{name: m, copies: 2, profile: resnet50_v2}]
workers: [{name: w}]
workloads:
  - {name: trace, arrivals: trace, file: plain.csv, models: [m-2]}
  - {name: day, arrivals: functions, file: day.csv, speed: 2}
  - {name: made, arrivals: synthetic-functions, rate: 5}
`)
	if out := simulateOK(t, "--trace "+plain); !regexp.MustCompile(`requests +3\n`).MatchString(out) || !strings.Contains(out, "seed 1, 2s") {
		t.Errorf("%s", out)
	}
	if out := simulateOK(t, "--functions "+day+" --models 2"); !strings.Contains(out, "resnet50_v2-2") || !strings.Contains(out, "seed 1, 2m0s") {
		t.Errorf("%s", out)
	}
	if out := simulateOK(t, "--scenario "+scenario+" --seed 3"); !strings.Contains(out, "seed 3") || !strings.Contains(out, "made") {
		t.Errorf("%s", out)
	}
}

func TestUsageOfSimulate(t *testing.T) {
	for line, want := range map[string]string{
		"":                                    "say when requests come",
		"--rate 1 --load 5":                   "--rate and --load exclude each other",
		"--rate 1 --policy efd":               "the policies are clockwork, deferred, edf, fifo, ",
		"--rate 1 --compare edf,x":            `no scheduling policy "x"`,
		"--rate 1 --fail w1":                  "write it as w1@10s or w1@10s+5s",
		"--rate 1 --slow w1@10s":              "write it as w1@10s*3",
		"--rate 1 --new-leader soon":          "write it as 30s",
		"--rate 1 --seeds 0":                  "from 1 to 1000",
		"--rate 1 -o yaml":                    "it must be table or json",
		"--load 0":                            "in percent, above 0",
		"--find-capacity 101":                 "a percentage",
		"--scenario x --rate 1":               "--rate does not go with --scenario",
		"--scenario x --experiment 6.1":       "exclude each other",
		"--experiment 6.1 --cv 2":             "--cv does not go with",
		"--rate 1 --models 200000":            "from 1 to 10000 and 100000",
		"--rate 1 --policy edf --compare edf": "exclude each other",
	} {
		o := execute(t, nil, nil, append([]string{"simulate"}, strings.Fields(line)...)...)
		if o.status != statusUsage || !strings.Contains(o.err, want) {
			t.Errorf("simulate %s: status %d, %s\nwant %s", line, o.status, o.err, want)
		}
	}
	for line, want := range map[string]string{
		"--scenario nosuch.yaml":             "nosuch.yaml",
		"--experiment 7.1":                   "the experiments are 6.1, 6.2",
		"--rate 1 --profile nosuch":          "it has resnet50_v2,",
		"--rate 1 --profiles nosuch.csv":     "nosuch.csv",
		"--rate 1 --fail w9@1s":              `"w9"`,
		"--closed 1 --load 5":                "exclude each other",
		"--experiment 6.1 --load 50":         "closed loops don't",
		"--trace nosuch.csv":                 "nosuch.csv",
		"--rate 1 --duration 1s --warmup 2s": "warm-up",
	} {
		o := execute(t, nil, nil, append([]string{"simulate"}, strings.Fields(line)...)...)
		if o.status == 0 || !strings.Contains(o.err, want) {
			t.Errorf("simulate %s: status %d, %s\nwant %s", line, o.status, o.err, want)
		}
	}
}

func TestNiceAxes(t *testing.T) {
	for _, test := range []struct{ x, top, tick float64 }{
		{100, 100, 20}, {101, 120, 50}, {0.3, 0.3, 0.1}, {7, 8, 2}, {736, 800, 200}, {0, 1, 0.5}, {1, 1, 0.2},
	} {
		top, tick := niceCeiling(test.x)
		if top < test.x || top > 1.6*max(test.x, 0.7) || tick <= 0 || top/tick > 10.5 {
			t.Errorf("%v: top %v, tick %v", test.x, top, tick)
		}
	}
}
