package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type fakeResult struct {
	Head
	Made int `json:"made"`
}

// fakeSeries are trials on numbered stages, each of which is told by outcome.
func fakeSeries(t *testing.T, to int, outcome func(trial, made int) (invalid string, whole bool, err error)) (s Series[int, fakeResult], told *[]string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "binary")
	if err := os.WriteFile(binary, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	book, err := OpenBook[fakeResult](filepath.Join(dir, "results"), binary, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	told = &[]string{}
	tell := func(format string, args ...any) { *told = append(*told, fmt.Sprintf(format, args...)) }
	opened, made, whole := 0, 0, true
	return Series[int, fakeResult]{
		Name: "row", Book: book, Print: "p", From: 1, To: to,
		Head: func(trial int) Head { return Head{Print: "p", Trial: trial} },
		Open: func(context.Context) (int, error) {
			opened++
			tell("open %d", opened)
			return opened, nil
		},
		Close: func(stage int) error { tell("close %d", stage); return nil },
		Run: func(_ context.Context, stage int, h Head) (r fakeResult, err error) {
			made++
			h.Invalid, whole, err = outcome(h.Trial, made)
			tell("trial %d on %d", h.Trial, stage)
			return fakeResult{h, made}, err
		},
		Void: func(h Head) fakeResult { return fakeResult{Head: h} },
		Done: func(int, fakeResult) (bool, error) { return whole, nil },
	}, told
}

func TestSeries(t *testing.T) {
	fine := func(int, int) (string, bool, error) { return "", true, nil }
	tests := []struct {
		name    string
		outcome func(trial, made int) (string, bool, error)
		told    []string
		err     string
	}{
		{"on one stage", fine, []string{"open 1", "trial 1 on 1", "trial 3 on 1", "close 1"}, ""},
		{"a stage that is not whole is replaced", func(int, int) (string, bool, error) { return "", false, nil },
			[]string{"open 1", "trial 1 on 1", "close 1", "open 2", "trial 3 on 2", "close 2"}, ""},
		{"what does not count is made again", func(_, made int) (string, bool, error) { return []string{"bad luck", "", ""}[made-1], true, nil },
			[]string{"open 1", "trial 1 on 1", "trial 1 on 1", "trial 3 on 1", "close 1"}, ""},
		{"but not for ever", func(int, int) (string, bool, error) { return "no load", true, nil },
			[]string{"open 1", "trial 1 on 1", "trial 1 on 1", "trial 1 on 1", "trial 1 on 1", "close 1"}, "4 trials did not count; the last: no load"},
		{"a trial that hangs does not count", func(_, made int) (string, bool, error) {
			if made == 1 {
				return "", false, context.DeadlineExceeded
			}
			return "", true, nil
		}, []string{"open 1", "trial 1 on 1", "trial 1 on 1", "trial 3 on 1", "close 1"}, ""},
	}
	for _, test := range tests {
		s, told := fakeSeries(t, 3, test.outcome)
		if test.name == "a trial that hangs does not count" {
			s.Done = func(int, fakeResult) (bool, error) { return true, nil }
		}
		// The second was made by an earlier run.
		if err := s.Book.Add(fakeResult{Head{Print: "p", Trial: 2}, 0}); err != nil {
			t.Fatal(err)
		}
		err := s.Make(t.Context())
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
		if !slices.Equal(*told, test.told) {
			t.Errorf("%s: %q, want %q", test.name, *told, test.told)
		}
	}
}

func TestASeriesEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s, told := fakeSeries(t, 3, func(int, int) (string, bool, error) {
		cancel(errors.New("enough"))
		return "", true, context.Cause(ctx)
	})
	if err := s.Make(ctx); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
	if want := []string{"open 1", "trial 1 on 1", "close 1"}; !slices.Equal(*told, want) || len(s.Book.Lines) != 0 {
		t.Errorf("%q, %d lines", *told, len(s.Book.Lines))
	}
}

func TestRequestsAreCounted(t *testing.T) {
	fault := time.Now()
	at := func(ms int) time.Time { return fault.Add(time.Duration(ms) * time.Millisecond) }
	const took = 4 * time.Millisecond
	outcomes := []Outcome{
		{Sent: at(-20), Took: took}, {Sent: at(-10), Took: took}, {Sent: at(0), Took: 9 * took, Degraded: true},
		{Sent: at(5), Took: took, Err: fmt.Errorf("%w: []", ErrWrong), Entry: "e"}, {Sent: at(6), Took: took, Err: ErrCrowded, Entry: "e"},
	}
	var r Requests
	r.Add(outcomes, fault)
	want := Requests{Sent: 5, Failed: 1, Wrong: 1, Degraded: 1, Latency: 4, LatencyMax: 36, Errors: []string{
		"sent 5 ms after the fault, e, after 4 ms: the answer is wrong: []",
		"sent 6 ms after the fault, e, after 4 ms: not sent: too many requests are unanswered"}}
	if !reflect.DeepEqual(r, want) || r.Bad() != 2 {
		t.Errorf("%+v, want %+v", r, want)
	}
	if got := MedianTook(outcomes, at(-1), at(100)); got != 9*took {
		t.Errorf("median %v", got)
	}
	if got := MedianTook(outcomes, at(50), at(100)); got != 0 {
		t.Errorf("median of none %v", got)
	}
}

func TestValuesOfEvents(t *testing.T) {
	e := Event{Text: []byte(`[WARN]  coordinator: worker disconnected: term=2 worker=w1 cause="rpc error: code = x" as=died`)}
	for key, want := range map[string]string{"term": "2", "worker": "w1", "cause": `"rpc error: code = x"`, "as": "died", "missing": "", "orker": ""} {
		if got := e.Value(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
