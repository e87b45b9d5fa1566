package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// retries is how many trials of a series may fail to count.
	retries = 3
	// trialTimeout bounds a trial.
	trialTimeout = 4 * time.Minute
)

// Series are trials of one row. It makes those that the book lacks, on one
// stage as long as that stays whole.
type Series[S any, R Told] struct {
	// Name is the row's, for messages.
	Name  string
	Book  *Book[R]
	Print string
	// From and To are the numbers of the first and the last trial.
	From, To int
	// Head begins the result of a trial.
	Head func(trial int) Head
	// Open prepares a stage, Close ends it.
	Open  func(context.Context) (S, error)
	Close func(S) error
	// Run makes one trial. What keeps it from counting is in the result; an error
	// is what makes going on useless, unless it is that ctx has ended.
	Run func(context.Context, S, Head) (R, error)
	// Void is a result that does not count.
	Void func(Head) R
	// Done is told each result, and says whether the stage can be used again.
	Done func(S, R) (whole bool, err error)
}

// Make makes the trials that are missing.
func (s Series[S, R]) Make(ctx context.Context) (err error) {
	done := map[int]bool{}
	for _, t := range s.Book.Trials(s.Print) {
		done[t.Told().Trial] = true
	}
	var stage *S
	defer func() {
		if stage != nil {
			err = errors.Join(err, s.Close(*stage))
		}
	}()
	failures := 0
	for n := s.From; n <= s.To; n++ {
		for !done[n] {
			if stage == nil {
				opened, err := s.Open(ctx)
				if err != nil {
					return fmt.Errorf("row %s: %w", s.Name, err)
				}
				stage = &opened
			}
			result, err := s.one(ctx, *stage, n)
			if err != nil {
				return err
			}
			if err := s.Book.Add(result); err != nil {
				return err
			}
			whole, err := s.Done(*stage, result)
			if err != nil {
				return err
			}
			if invalid := result.Told().Invalid; invalid == "" {
				done[n] = true
			} else if failures++; failures > retries {
				return fmt.Errorf("row %s: %d trials did not count; the last: %s", s.Name, failures, invalid)
			}
			if !whole {
				broken := *stage
				stage = nil
				if err := s.Close(broken); err != nil {
					fmt.Printf("  stop the cluster: %v\n", err)
				}
			}
		}
	}
	return nil
}

func (s Series[S, R]) one(ctx context.Context, stage S, n int) (R, error) {
	bounded, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	head := s.Head(n)
	result, err := s.Run(bounded, stage, head)
	if err != nil && ctx.Err() == nil {
		head.Invalid = fmt.Sprintf("not done within %v: %v", trialTimeout, err)
		return s.Void(head), nil
	}
	return result, err
}
