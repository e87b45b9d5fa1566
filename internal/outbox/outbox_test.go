package outbox

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

func TestGathersWhileTheWriterIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := New(3, func(int) int { return 1 })
		ctx, cancel := context.WithCancel(t.Context())
		busy := make(chan struct{})
		var sent [][]int
		done := make(chan error)
		go func() {
			done <- box.Drain(ctx.Done(), func(items []int) error {
				sent = append(sent, slices.Clone(items))
				<-busy
				return nil
			})
		}()
		box.Put(1)
		synctest.Wait()
		box.Put(2)
		box.Put(3, 4, 5)
		close(busy)
		synctest.Wait()
		want := [][]int{{1}, {2, 3, 4}, {5}}
		if !slices.EqualFunc(sent, want, slices.Equal) {
			t.Errorf("sent %v, want %v", sent, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Drain ended with %v", err)
		}
	})
}

func TestAnItemAboveTheMaximumGoesAlone(t *testing.T) {
	box := New(10, func(n int) int { return n })
	box.Put(50, 4, 4, 4)
	if got, _ := box.take(); !slices.Equal(got, []int{50}) {
		t.Errorf("first %v", got)
	}
	if got, _ := box.take(); !slices.Equal(got, []int{4, 4}) {
		t.Errorf("second %v", got)
	}
}

func TestDrainEndsWithTheSendersError(t *testing.T) {
	box := New(1, func(int) int { return 1 })
	box.Put(1)
	broken := errors.New("broken")
	if err := box.Drain(t.Context().Done(), func([]int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestFinishSendsWhatIsThereAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := New(10, func(int) int { return 1 })
		var sent []int
		done := make(chan error)
		go func() {
			done <- box.Drain(nil, func(items []int) error { sent = append(sent, items...); return nil })
		}()
		box.Put(1, 2)
		box.Finish()
		box.Put(3)
		if err := <-done; err != nil || !slices.Equal(sent, []int{1, 2}) {
			t.Errorf("sent %v, ended with %v", sent, err)
		}
	})
}

func TestPutWithinBoundsWhatWaits(t *testing.T) {
	box := New(1000, func(n int) int { return n })
	for i, want := range []bool{true, false, false} {
		if got := box.PutWithin(100, 200); got != want {
			t.Errorf("put %d: %v, want %v", i, got, want)
		}
	}
	box.take()
	if !box.PutWithin(100, 60) || !box.PutWithin(100, 40) || box.PutWithin(100, 1) {
		t.Error("after take there was to be room for just 100")
	}
}
