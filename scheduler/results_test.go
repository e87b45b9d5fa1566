package scheduler

import (
	"maps"
	"slices"
	"testing"
)

// afterBatch lets requests 1 and 2 run as one batch that ends with res, and
// returns what came of that in the same step, with request 3 just submitted.
func afterBatch(t *testing.T, cancel bool, res Result) (next []RequestID, reasons map[RequestID]Reason) {
	t.Helper()
	p := newEDF(Options{})
	s := resnets(1, 1, 100)
	s.Workers[0].Devices[0].Resident = []Resident{{1, 7}}
	request := func(id RequestID) Event {
		return Submit{&Request{ID: id, Model: 1, Rows: 1, Deadline: Instant(200 * ms)}}
	}
	var out Decisions
	p.Step(0, []Event{Start{s}, request(1), request(2)}, &out)
	if len(out.Actions) != 1 || !slices.Equal(out.Actions[0].Requests, []RequestID{1, 2}) {
		t.Fatalf("began with %+v", out.Actions)
	}
	res.Action = out.Actions[0].ID
	if cancel {
		out.Reset()
		p.Step(Instant(ms), []Event{Cancel{1}, Cancel{2}}, &out)
	}
	out.Reset()
	p.Step(Instant(5*ms), []Event{Finished{&res}, request(3)}, &out)
	for _, a := range out.Actions {
		next = append(next, a.Requests...)
	}
	reasons = make(map[RequestID]Reason)
	for _, c := range out.Completions {
		reasons[c.Request] = c.Reason
	}
	return next, reasons
}

func TestACancelledBatchDoesNotHoldTheDeviceBack(t *testing.T) {
	if next, _ := afterBatch(t, true, Result{Outcome: Skipped}); !slices.Equal(next, []RequestID{3}) {
		t.Errorf("after a batch that nobody wanted any more %v runs, want request 3 at once", next)
	}
	if next, _ := afterBatch(t, true, Result{Outcome: Refused}); len(next) > 0 {
		t.Errorf("after a batch that the worker refused %v runs at once", next)
	}
}

func TestRequestsThatWereNotExecutedAreTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		res  Result
		next []RequestID
		ends map[RequestID]Reason
	}{
		{"given up before it began", Result{Outcome: Skipped}, []RequestID{1, 2, 3}, nil},
		{"all payloads missing", Result{Outcome: Skipped, Returned: []RequestID{1, 2}}, []RequestID{1, 2, 3}, nil},
		{"one payload missing", Result{Outcome: OK, Returned: []RequestID{2}}, []RequestID{2, 3}, map[RequestID]Reason{1: Done}},
		{"one invalid, one missing", Result{Outcome: Skipped, Rejected: []RequestID{1}, Returned: []RequestID{2}},
			[]RequestID{2, 3}, map[RequestID]Reason{1: Rejected}},
		{"one missing, the other failed", Result{Outcome: Failed, Returned: []RequestID{2}}, nil, map[RequestID]Reason{1: ExecutionFailed}},
	} {
		t.Run(test.name, func(t *testing.T) {
			next, ends := afterBatch(t, false, test.res)
			slices.Sort(next)
			if !slices.Equal(next, test.next) {
				t.Errorf("requests %v run next, want %v", next, test.next)
			}
			if !maps.Equal(ends, test.ends) {
				t.Errorf("ended: %v, want %v", ends, test.ends)
			}
		})
	}
}
