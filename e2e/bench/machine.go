package bench

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MemoryDir makes a folder, in memory where the system has such.
func MemoryDir(name string) (string, error) {
	parent := "/dev/shm"
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = ""
	}
	return os.MkdirTemp(parent, "orrery-"+name+"-")
}

// CPU is the time that all processors have spent, in ticks.
type CPU struct{ idle, stolen, all uint64 }

// ReadCPU returns zeros where the system does not tell.
func ReadCPU() (c CPU) {
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

// Since are the shares, of 100, that were idle and that other machines took.
func (c CPU) Since(before CPU) (idle, stolen float64) {
	all := float64(c.all - before.all)
	if all == 0 {
		return 0, 0
	}
	return 100 * float64(c.idle-before.idle) / all, 100 * float64(c.stolen-before.stolen) / all
}

// clockTick is the unit of the times in /proc, the same on all of Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// ProcessTime is the time that processors have spent on a process, 0 where the
// system does not tell.
func ProcessTime(pid int) time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name, in parentheses, may have spaces; user and system time are the
	// twelfth and thirteenth field after it.
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(rest) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(rest[11], 10, 64)
	system, _ := strconv.ParseInt(rest[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// LoadAverage is that of the last minute.
func LoadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// stallTick is how often Stalls looks at the clock.
const stallTick = 5 * time.Millisecond

// Stalls notices when this program, and so probably its neighbours, did not get
// a processor.
type Stalls struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu    sync.Mutex
	worst time.Duration
}

// WatchStalls begins to look. End must be called.
func WatchStalls() *Stalls {
	s := &Stalls{stop: make(chan struct{})}
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

// Reset forgets what was noticed.
func (s *Stalls) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worst = 0
}

// Longest is how late the latest tick was.
func (s *Stalls) Longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worst
}

// End stops looking.
func (s *Stalls) End() {
	close(s.stop)
	s.wait.Wait()
}
