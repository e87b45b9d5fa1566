package bench

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
)

// Busy is how busy the machine was over a span of time.
type Busy struct {
	Span time.Duration
	// LoadBefore and LoadAfter are the load averages of the last minute.
	LoadBefore, LoadAfter float64
	// Shares of the time of all processors, of 100: what was idle, what other
	// machines took, and what this program and the cluster's processes used. The
	// rest is what everything else used.
	Idle, Stolen, Ours float64
}

// String is for a person.
func (b Busy) String() string {
	return fmt.Sprintf("%d processors for %v: %.0f %% idle, %.0f %% used by the cluster and this program, %.0f %% by others, %.0f %% stolen; load average %.2f before, %.2f after",
		runtime.NumCPU(), b.Span.Round(100*time.Millisecond), b.Idle, b.Ours, max(0, 100-b.Idle-b.Ours-b.Stolen), b.Stolen, b.LoadBefore, b.LoadAfter)
}

// Watch is a span that has begun. None of the cluster's processes may end in it.
type Watch struct {
	cluster *devcluster.Cluster
	began   time.Time
	load    float64
	cpu     CPU
	ours    time.Duration
}

// WatchBusy begins a span.
func WatchBusy(c *devcluster.Cluster) Watch {
	return Watch{cluster: c, began: time.Now(), load: LoadAverage(), cpu: ReadCPU(), ours: timeOf(c)}
}

// Busy is how busy the machine has been since then.
func (w Watch) Busy() Busy {
	b := Busy{Span: time.Since(w.began), LoadBefore: w.load, LoadAfter: LoadAverage()}
	b.Idle, b.Stolen = ReadCPU().Since(w.cpu)
	b.Ours = 100 * float64(timeOf(w.cluster)-w.ours) / float64(b.Span) / float64(runtime.NumCPU())
	return b
}

// timeOf is the time that processors have spent on a cluster and this program.
func timeOf(c *devcluster.Cluster) time.Duration {
	spent := ProcessTime(os.Getpid())
	for _, p := range c.All() {
		spent += ProcessTime(p.PID())
	}
	return spent
}
