package controller

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/scheduler"
)

// A refusal speaks of the last attempt, the client asks about all of them.
func TestARefusalAfterALostAttemptIsNotCalledNotExecuted(t *testing.T) {
	for name, lost := range map[string]bool{"the first leader steps down with it": true, "one attempt": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				replica := replicaWith(t, serving...)
				c := New(Options{Name: "c", Replica: replica, Logger: hclog.NewNullLogger(), MaxMessage: 1 << 20, LinkRequests: 1, LinkBytes: 1,
					Tunables: Tunables{HeldRequests: 1, HeldBytes: 1 << 20, InferBuffer: time.Second, DefaultTimeout: 5 * time.Second}})
				keeps := newRig(t, replica, func(scheduler.Instant, []scheduler.Event, *scheduler.Decisions) {})
				refuses := newRig(t, replica, func(_ scheduler.Instant, events []scheduler.Event, out *scheduler.Decisions) {
					for _, e := range events {
						if e, ok := e.(scheduler.Submit); ok {
							out.Completions = append(out.Completions, scheduler.Completion{Request: e.Request.ID, Reason: scheduler.NoWorker})
						}
					}
				})
				defer refuses.end()
				refuses.mailbox.post(refuses.start)
				if lost {
					c.route.set(way{term: &term{c: c, dispatcher: keeps.dispatcher}})
					time.AfterFunc(time.Second, func() {
						c.route.set(way{term: &term{c: c, dispatcher: refuses.dispatcher}})
						keeps.end()
					})
				} else {
					keeps.end()
					c.route.set(way{term: &term{c: c, dispatcher: refuses.dispatcher}})
				}
				_, err := c.entry.infer(t.Context(), &inferencepb.ModelInferRequest{ModelName: "m"}, nil, "")
				want := errs.NotExecuted
				if lost {
					want = errs.MaybeExecuted
				}
				if e := errs.From(err); e.Reason != errs.NotProfiled || e.Execution != want {
					t.Errorf("%v: execution %v, want %v", e, e.Execution, want)
				}
			})
		})
	}
}
