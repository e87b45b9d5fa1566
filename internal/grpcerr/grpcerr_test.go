package grpcerr

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/errs"
)

func TestEveryReasonSurvivesTheWire(t *testing.T) {
	for _, r := range errs.Reasons() {
		for _, execution := range []errs.Execution{errs.MaybeExecuted, errs.NotExecuted, errs.Executed} {
			want := &errs.Error{Reason: r, Message: "text of " + string(r), Execution: execution, RetryAfter: 40 * time.Millisecond}
			for way, got := range map[string]error{
				"status": FromStatus(Status(want)),
				"answer": FromAnswer(Answer(want)),
			} {
				e := errs.From(got)
				if *e != *want {
					t.Errorf("%s through a %s: got %+v, want %+v", r, way, *e, *want)
				}
				if !errors.Is(got, r) {
					t.Errorf("%s through a %s is not itself any more", r, way)
				}
			}
			if r != errs.Internal && Code(r) == codes.Internal && r != errs.ExecutionFailed {
				t.Errorf("%s has no code of its own", r)
			}
		}
	}
}

func TestContextErrorsHaveTheirReason(t *testing.T) {
	if err := FromStatus(Status(context.DeadlineExceeded)); !errors.Is(err, errs.DeadlinePassed) {
		t.Errorf("deadline: got %v", err)
	}
	if err := FromStatus(Status(context.Canceled)); !errors.Is(err, errs.Cancelled) {
		t.Errorf("cancel: got %v", err)
	}
}

func TestForeignStatusIsKept(t *testing.T) {
	foreign := status.Error(codes.PermissionDenied, "no")
	if got := Status(foreign); status.Code(got) != codes.PermissionDenied {
		t.Errorf("got %v", got)
	}
	if err := FromStatus(status.Error(codes.Unavailable, "gone")); !errors.Is(err, errs.Unreachable) {
		t.Errorf("got %v", err)
	}
	if Status(nil) != nil || FromStatus(nil) != nil || FromAnswer(nil) != nil {
		t.Error("nil must stay nil")
	}
}
