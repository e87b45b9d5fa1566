//go:build linux

package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cpu is the time that all processors have spent, in ticks.
type cpu struct{ idle, stolen, all uint64 }

// readCPU returns zeros where the system does not tell.
func readCPU() (c cpu) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 { // the rest is counted twice
			continue
		}
		ticks, _ := strconv.ParseUint(field, 10, 64)
		c.all += ticks
		switch i {
		case 4, 5:
			c.idle += ticks
		case 8:
			c.stolen += ticks
		}
	}
	return c
}

// since are the shares, of 100, that were idle and that other machines took.
func (c cpu) since(before cpu) (idle, stolen float64) {
	all := float64(c.all - before.all)
	if all == 0 {
		return 0, 0
	}
	return 100 * float64(c.idle-before.idle) / all, 100 * float64(c.stolen-before.stolen) / all
}

// loadAverage is that of the last minute.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// stallTick is how often stalls looks at the clock.
const stallTick = 5 * time.Millisecond

// stalls notices when this program, and so probably its neighbours, did not get
// a processor.
type stalls struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu    sync.Mutex
	worst time.Duration
}

func watchStalls() *stalls {
	s := &stalls{stop: make(chan struct{})}
	s.wait.Go(func() {
		ticker := time.NewTicker(stallTick)
		defer ticker.Stop()
		last := time.Now()
		for {
			select {
			case <-ticker.C:
			case <-s.stop:
				return
			}
			now := time.Now()
			s.mu.Lock()
			s.worst = max(s.worst, now.Sub(last)-stallTick)
			s.mu.Unlock()
			last = now
		}
	})
	return s
}

// reset forgets what was noticed.
func (s *stalls) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worst = 0
}

// longest is how late the latest tick was.
func (s *stalls) longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worst
}

func (s *stalls) end() {
	close(s.stop)
	s.wait.Wait()
}
