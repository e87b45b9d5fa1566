package controller

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSharedRunsBeginAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared()
		var mu sync.Mutex
		var began []time.Time
		check := func(context.Context) error {
			mu.Lock()
			began = append(began, time.Now())
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			return nil
		}
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				called := time.Now()
				if err := s.run(t.Context(), check); err != nil {
					t.Error(err)
				}
				if took := time.Since(called); took > 20*time.Millisecond {
					t.Errorf("a caller waited %v, for more than the run under way and its own", took)
				}
				mu.Lock()
				defer mu.Unlock()
				if began[len(began)-1].Before(called) {
					t.Error("a result was older than the call")
				}
			})
		}
		callers.Wait()
		if len(began) > 15 {
			t.Errorf("100 callers made %d runs", len(began))
		}
	})
}
