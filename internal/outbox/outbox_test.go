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
			done <- box.Drain(ctx, func(items []int) error {
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
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Drain ended with %v", err)
		}
	})
}

func TestAnItemAboveTheMaximumGoesAlone(t *testing.T) {
	box := New(10, func(n int) int { return n })
	box.Put(50, 4, 4, 4)
	if got := box.take(); !slices.Equal(got, []int{50}) {
		t.Errorf("first %v", got)
	}
	if got := box.take(); !slices.Equal(got, []int{4, 4}) {
		t.Errorf("second %v", got)
	}
}

func TestDrainEndsWithTheSendersError(t *testing.T) {
	box := New(1, func(int) int { return 1 })
	box.Put(1)
	broken := errors.New("broken")
	if err := box.Drain(t.Context(), func([]int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
