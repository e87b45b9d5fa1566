package controller

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// behind is a replica that does not know yet how far the log is committed.
type behind struct {
	Consensus // not used
	commit    atomic.Uint64
}

func (b *behind) Progress() (term, commit, applied uint64) { return 1, b.commit.Load(), 0 }

// Who belongs to the cluster is in the log, but not in the state: a reader has to
// wait for that too.
func TestAReaderWaitsForTheLogAndNotForTheStateAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &behind{}
		log.commit.Store(3)
		c := &Controller{options: Options{Replica: fsm.NewReplica(fsm.Options{}), Consensus: log}}
		time.AfterFunc(time.Second, func() { log.commit.Store(5) })
		began := time.Now()
		if err := c.reach(t.Context(), &peerpb.ReadIndexResponse{CommitIndex: 5}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Second || took > time.Second+2*commitLook {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.reach(ctx, &peerpb.ReadIndexResponse{CommitIndex: 6}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.reach(ctx, &peerpb.ReadIndexResponse{CommitIndex: 5, Index: 1}); err == nil {
			t.Error("a state that has not come so far is current")
		}
	})
}
