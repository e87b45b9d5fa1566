//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	// settle is how long a load runs before it is counted. Elections count from
	// the beginning.
	settle = time.Second
	// writePeriod is between two control writes of the cluster, writePatience how
	// long each may take.
	writePeriod   = 200 * time.Millisecond
	writePatience = 5 * time.Second
)

// phase is a load that is kept up.
type phase struct {
	// name is empty if nothing is to be printed meanwhile.
	name            string
	duration, every time.Duration
	model           string
	rate            int
	deadline        time.Duration
	// inFlight bounds the requests that are unanswered, if not 0.
	inFlight int
	// controlWrites says that there are such, too.
	controlWrites bool
}

// figures are what a phase has shown.
type figures struct {
	phase
	took    time.Duration
	counts  counts
	changes changes
	writes  writeFigures
	machine machine
	cores   cores
	note    string
	// lines of the logs that matter.
	lines []string
}

// machine is how busy it was.
type machine struct {
	idle, stolen, load float64
	stall              time.Duration
}

func (m machine) String() string {
	return fmt.Sprintf("CPU idle %.0f %%, stolen %.0f %%, load average %.1f, this program stalled for %v", m.idle, m.stolen, m.load, m.stall.Round(time.Millisecond))
}

// writeFigures are what became of control writes.
type writeFigures struct {
	sent, failed int
	longest      time.Duration
	first        error
}

func (f figures) answersPerSecond() float64 { return float64(f.counts.answered) / f.took.Seconds() }

// keepUp runs one phase. The error is what makes its figures useless.
func (s *stage) keepUp(ctx context.Context, p phase) (f figures, err error) {
	f.phase = p
	if s.now, err = bench.AwaitWhole(ctx, s.cluster, wholeTimeout); err != nil {
		return f, err
	}
	watch, err := startWatch(ctx, s.cluster, func(line string) {
		if p.name != "" {
			fmt.Println("    " + line)
		}
		f.lines = append(f.lines, line)
	})
	if err != nil {
		return f, err
	}
	entries, err := s.entries()
	if err != nil {
		return f, err
	}
	tally := newTally()
	load := bench.StartLoad(bench.LoadOptions{
		Model: p.model, Rate: p.rate, Deadline: p.deadline, Entries: entries, InFlight: p.inFlight, Each: tally.add,
	})
	defer load.End()
	var writers *bench.Writers
	if p.controlWrites {
		controllers := s.cluster.Controllers
		o := bench.WriterOptions{Patience: writePatience, Period: writePeriod * time.Duration(len(controllers))}
		if writers, err = bench.StartWriters(o, controllers); err != nil {
			return f, err
		}
		defer writers.End()
	}
	if err := bench.Pause(ctx, settle); err != nil {
		return f, err
	}
	warm := tally.take()
	if warm.answered == 0 {
		return f, fmt.Errorf("no request was answered in the first %v: %v", settle, warm.kinds)
	}
	stalls := bench.WatchStalls()
	defer stalls.End()
	before, used, began := bench.ReadCPU(), s.usage(), time.Now()
	if err := s.follow(ctx, &f, tally, watch, stalls, began); err != nil {
		return f, err
	}
	f.took = time.Since(began)
	f.machine.idle, f.machine.stolen = bench.ReadCPU().Since(before)
	f.machine.stall = stalls.Longest()
	f.cores = s.usage().over(f.took, used, 100-f.machine.idle-f.machine.stolen)
	load.End()
	f.counts.merge(tally.take())
	if writers != nil {
		f.writes = tellWrites(writers.End())
	}
	f.changes, err = watch.look(ctx)
	return f, err
}

// follow takes the counts now and then until the phase is over.
func (s *stage) follow(ctx context.Context, f *figures, tally *tally, watch *watch, stalls *bench.Stalls, began time.Time) error {
	for end := began.Add(f.duration); ; {
		from, before := time.Now(), bench.ReadCPU()
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := bench.Pause(ctx, min(left, f.every)); err != nil {
			return err
		}
		for _, p := range s.cluster.All() {
			select {
			case <-p.Exited():
				return fmt.Errorf("%s has exited (%w); the end of its log:\n%s", p.Name, p.Wait(), p.LogTail(15))
			default:
			}
		}
		c := tally.take()
		f.counts.merge(c)
		average := bench.LoadAverage()
		f.machine.load = max(f.machine.load, average)
		if f.name == "" {
			continue
		}
		m := machine{load: average, stall: stalls.Longest()}
		m.idle, m.stolen = bench.ReadCPU().Since(before)
		seen, err := watch.look(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%-5s %6s  %.0f answers/s, %d failed, %d late, p50 %v, p99 %v, max %v; so far %d elections, %d stood, %d sessions lost; %v\n",
			f.name, time.Since(began).Round(time.Second), float64(c.answered)/time.Since(from).Seconds(), c.other(), c.late,
			short(c.latencies.quantile(0.5)), short(c.latencies.quantile(0.99)), short(c.latencies.longest),
			seen.elections(), seen.stood, seen.lost, m)
	}
}

func tellWrites(all []bench.Write) (f writeFigures) {
	for _, w := range all {
		f.sent++
		f.longest = max(f.longest, w.Took)
		if w.Err != nil {
			f.failed++
			if f.first == nil {
				f.first = fmt.Errorf("at %s, after %v: %w", w.At, short(w.Took), w.Err)
			}
		}
	}
	return f
}
