package raftnode

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// hangingDisk does not return from a write of log entries while it hangs.
type hangingDisk struct {
	disk
	hangs   atomic.Bool
	release chan struct{} // closed to end it
}

func (d *hangingDisk) StoreLogs(logs []*raft.Log) error {
	if d.hangs.Load() {
		<-d.release
	}
	return d.disk.StoreLogs(logs)
}

func TestHangingDiskIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		leader bool
		limits WriteLimits
		min    time.Duration
		max    time.Duration
	}{
		"leader":             {leader: true, min: 2 * time.Second, max: 2500 * time.Millisecond},
		"follower":           {min: 10 * time.Second, max: 10500 * time.Millisecond},
		"leader, set":        {leader: true, limits: WriteLimits{Leader: time.Second, Follower: 3 * time.Second}, min: time.Second, max: 1300 * time.Millisecond},
		"follower, set":      {limits: WriteLimits{Leader: time.Second, Follower: 3 * time.Second}, min: 3 * time.Second, max: 3300 * time.Millisecond},
		"follower, the same": {limits: WriteLimits{Leader: time.Second, Follower: time.Second}, min: time.Second, max: 1300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				disks, hangs := map[string]*hangingDisk{}, map[string]chan error{}
				c.adjust = func(o *Options) {
					o.WriteLimits = test.limits
					hanging, hang := &hangingDisk{release: make(chan struct{})}, make(chan error, 10)
					disks[o.Name], hangs[o.Name] = hanging, hang
					o.wrapDisk = func(d disk) disk { hanging.disk = d; return hanging }
					o.OnHang = func(err error) { hang <- err }
				}
				c.form("c1", "c2", "c3")
				c.apply("a")
				r := c.leader()
				if !test.leader {
					r = c.others(r)[0]
				}
				defer close(disks[r.name].release) // before the cluster is closed
				disks[r.name].hangs.Store(true)
				began := time.Now()
				command := "b"
				if !test.leader {
					c.apply(command)
				} else {
					go func() { _, _, _ = r.Apply(t.Context(), []byte(command)) }()
				}
				err := <-hangs[r.name]
				if took := time.Since(began); took < test.min || took > test.max {
					t.Errorf("reported after %v, want %v to %v", took, test.min, test.max)
				}
				if !strings.Contains(err.Error(), r.dir+" hangs: to store log entries") {
					t.Errorf("reported %v", err)
				}
				time.Sleep(time.Minute)
				for name, hang := range hangs {
					if len(hang) > 0 {
						t.Errorf("%s reported %v", name, <-hang)
					}
				}
			})
		})
	}
}

func TestSlowSnapshotIsNoHangOfTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := &watchdog{}
		hung := make(chan error, 1)
		stop, done := make(chan struct{}), make(chan struct{})
		limits := WriteLimits{Leader: 2 * time.Second, Follower: 10 * time.Second}
		go func() {
			defer close(done)
			watch.run(stop, limits, func() bool { return true }, func(err error) { hung <- err })
		}()
		defer func() { close(stop); <-done }()
		call := watch.begin("write a snapshot", true)
		time.Sleep(9 * time.Second)
		watch.end(call)
		time.Sleep(time.Minute)
		if len(hung) > 0 {
			t.Fatalf("reported %v", <-hung)
		}
		watch.begin("write a snapshot", true)
		time.Sleep(11 * time.Second)
		if len(hung) == 0 {
			t.Error("not reported")
		}
	})
}

func TestStoppedProcessDoesNotBlameTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := &watchdog{}
		hung := make(chan error, 1)
		stop, done := make(chan struct{}), make(chan struct{})
		var frozen atomic.Bool
		leading := func() bool {
			if frozen.Load() {
				time.Sleep(time.Minute)
				frozen.Store(false)
			}
			return true
		}
		go func() {
			defer close(done)
			watch.run(stop, WriteLimits{Leader: time.Second, Follower: time.Second}, leading, func(err error) { hung <- err })
		}()
		defer func() { close(stop); <-done }()
		time.Sleep(10 * time.Second)
		call := watch.begin("store log entries", false)
		frozen.Store(true)
		time.Sleep(time.Minute + 500*time.Millisecond) // the disk needs half a second, once there is a process
		watch.end(call)
		time.Sleep(time.Minute)
		if len(hung) > 0 {
			t.Errorf("reported %v", <-hung)
		}
	})
}

func TestHangPanicsByDefault(t *testing.T) {
	opts, err := Options{Name: "c1", Dir: t.TempDir(), FSM: &journal{}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	opts.OnHang(errDisk)
}

// BenchmarkWatchdog is what it costs a call of the storage.
func BenchmarkWatchdog(b *testing.B) {
	watch := &watchdog{}
	for b.Loop() {
		watch.end(watch.begin("store log entries", false))
	}
}
