package histories

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// usual is how clients work unless a test wants something special.
func usual() habits {
	return habits{
		kinds: []kind{
			load, load, load, load, load, load, unload, unload, unload, unload,
			list, list, list, list, list, list, set, set, read,
		},
		think:    50 * time.Millisecond,
		patience: []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second},
		attempts: 4,
		losing:   0.05,
	}
}

// crowd is all clients of a cluster.
type crowd struct {
	t       *testing.T
	cluster *cluster
	history *history
	names   *names
	// actors work. The observer and those who queue do what the test tells them.
	actors, queuers []*actor
	observer        *actor
}

// queuers is how many wait at a leader that sleeps.
const queuers = 16

// gather makes the clients.
func gather(t *testing.T, c *cluster, seed uint64, size int, h habits) *crowd {
	t.Helper()
	k := &crowd{t: t, cluster: c, history: newHistory(settingsOf(t, c)), names: newNames(6, 100)}
	made := 0
	join := func() *actor {
		made++
		return &actor{
			id: made, choose: choices(seed, 100+uint64(made)), habits: h, names: k.names, history: k.history,
			controllers: c.controls, where: c.names(),
			problem: func(err error) { t.Error(err) },
		}
	}
	for range size {
		k.actors = append(k.actors, join())
	}
	for range queuers {
		k.queuers = append(k.queuers, join())
	}
	k.observer = join()
	return k
}

// settingsOf are the settings of a cluster that nobody has changed yet.
func settingsOf(t *testing.T, c *cluster) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	status, err := c.controls[0].ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
	if err != nil {
		t.Fatalf("read the settings: %v", err)
	}
	return valueOf(status.Cluster.GetSettings())
}

// work has all clients work while during runs. All operations have ended when
// it returns.
func (k *crowd) work(ctx context.Context, during func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	for _, a := range k.actors {
		working.Go(func() { a.run(ctx) })
	}
	during(ctx)
}

// awaitAnswers waits until so many more operations have been answered: the
// cluster works, and is worked with.
func (k *crowd) awaitAnswers(ctx context.Context, more int) error {
	_, before := k.history.counts()
	return eventually(ctx, recoverTimeout, func() error {
		if _, now := k.history.counts(); now < before+more {
			return fmt.Errorf("%d of %d operations answered", now-before, more)
		}
		return nil
	})
}

// insist has one more client change the settings at one controller, a few times
// and without patience: what it answers now may never be committed.
func (k *crowd) insist(at *devcluster.Process) {
	observer := k.observer
	by := approach{at: slices.Index(k.cluster.Controllers, at), attempts: 1, patience: 100 * time.Millisecond}
	for range 3 {
		observer.operateBy(by, observer.make(set))
	}
}

// queue has some more clients read at one controller, and wait long for it. What
// it returns waits for them.
func (k *crowd) queue(at *devcluster.Process) (wait func()) {
	by := approach{at: slices.Index(k.cluster.Controllers, at), attempts: 1, patience: 10 * time.Second}
	var waiting sync.WaitGroup
	for _, a := range k.queuers {
		waiting.Go(func() { a.operateBy(by, a.make(list)) })
	}
	return waiting.Wait
}

// look has one more client read the settings.
func (k *crowd) look() {
	observer := k.observer
	by := approach{at: observer.choose.IntN(len(k.cluster.controls)), attempts: 20, patience: 2 * time.Second}
	observer.operateBy(by, observer.make(read))
}

// readAll has one more client read all that there is.
func (k *crowd) readAll() {
	observer := k.observer
	by := approach{attempts: 20, patience: 2 * time.Second}
	for _, name := range k.names.all() {
		by.at++
		observer.operateBy(by, input{Kind: list, Key: name})
	}
	for range k.cluster.controls {
		by.at++
		observer.operateBy(by, observer.make(read))
	}
}
