//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// The fleet and its model, the same in both worlds. Its batches are long, so that
// what two busy cores add to each is a small part: full ones are 160 requests/s a
// worker.
const (
	workers   = 2
	models    = 4
	ceiling   = workers * 16 / 0.100
	slo       = 400 * time.Millisecond
	jitter    = "0.01"
	modelFile = "models.csv"
	modelRow  = "bench"
	modelRows = "model,input_bytes,output_bytes,weights_MB,weights_load_ms,b1_ms,b2_ms,b4_ms,b8_ms,b16_ms\n" +
		modelRow + ",64,16,100,10,20,30,40,60,100\n"
)

// load is Poisson traffic.
type load struct {
	name string
	// share is that of the ceiling.
	share float64
}

func loads() []load { return []load{{"60 %", 0.6}, {"90 %", 0.9}, {"150 %", 1.5}} }

// planned is a request to be.
type planned struct {
	at    time.Duration
	model int
}

func (l load) plan(o options) (all []planned) {
	random := bench.RandomFor(o.seed, "load "+l.name, 0)
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() / (l.share * ceiling) * float64(time.Second))
		if at >= o.span {
			return all
		}
		all = append(all, planned{at, random.IntN(models)})
	}
}

// trace is the plan as the simulator reads it.
func trace(plan []planned) string {
	var b strings.Builder
	b.WriteString("seconds,model\n")
	for _, p := range plan {
		fmt.Fprintf(&b, "%.9f,%d\n", p.at.Seconds(), p.model)
	}
	return b.String()
}

// The way between two processes of one machine, with the timers that ring late;
// what it really takes is not known.
const (
	networkDelay  = 300 * time.Microsecond
	networkJitter = 200 * time.Microsecond
)

// scenario is what the simulator is told. overhead is by how much the real batches
// were longer than the table says: timers ring late, by more the busier the
// machine is, which no simulator can know.
func scenario(o options, traceFile string, overhead time.Duration) string {
	return fmt.Sprintf(`name: fidelity
seed: %d
duration: %v
network: {delay: %v, jitter: %v}
execution_jitter: %s
execution_overhead: %v
profiles: %s
models: [{name: m, copies: %d, profile: %s}]
workers: [{name: w, count: %d}]
workloads: [{name: load, arrivals: trace, file: %s, slo: %v}]
`, o.seed, o.span, networkDelay, networkJitter, jitter, overhead, modelFile, models, modelRow, workers, traceFile, slo)
}

// tableTime is what the table says that a batch takes.
func tableTime(rows int) time.Duration {
	points := []struct {
		rows int
		ms   float64
	}{{1, 20}, {2, 30}, {4, 40}, {8, 60}, {16, 100}}
	for i, p := range points[1:] {
		if rows <= p.rows {
			below := points[i]
			share := float64(max(rows, 1)-below.rows) / float64(p.rows-below.rows)
			return time.Duration((below.ms + share*(p.ms-below.ms)) * float64(time.Millisecond))
		}
	}
	return 100 * time.Millisecond
}
