package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestARetryGetsTheFirstResult(t *testing.T) {
	l := newCluster(t)
	cmd := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	first := proto.CloneOf(l.apply(proto.CloneOf(cmd)))
	l.ok(&logpb.UnloadModel{Name: "m"})
	before := records(l.state)

	l.now += int64(9 * time.Minute)
	cmd.ProposedUnixNs = l.now // another leader proposes it again
	equal(t, "result", l.apply(cmd), first)
	equal(t, "state", records(l.state), before)

	refusal := l.command(&logpb.UnloadModel{Name: "m"})
	first = proto.CloneOf(l.apply(refusal))
	equal(t, "reason", first.GetReason(), logpb.Reason_REASON_UNKNOWN_MODEL)
	l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	equal(t, "refusals are remembered: result", l.apply(refusal), first)
}

func TestRequestsThatCouldNotBeToldFromARetry(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*logpb.Command)
		words  string
	}{
		"no id":      {func(c *logpb.Command) { c.RequestId = "" }, "request id is empty"},
		"no time":    {func(c *logpb.Command) { c.RequestedUnixNs = 0 }, "does not say when"},
		"the future": {func(c *logpb.Command) { c.RequestedUnixNs = c.ProposedUnixNs + int64(2*time.Minute) }, "2m0s in the future"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newCluster(t)
			cmd := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
			c.change(cmd)
			result := l.apply(cmd)
			equal(t, "reason", result.GetReason(), logpb.Reason_REASON_INVALID)
			if len(l.state.Models()) != 0 || len(l.state.requests.rows) != 1 {
				t.Errorf("it had an effect")
			}
			if !strings.Contains(result.GetMessage(), c.words) {
				t.Errorf("%q does not say %q", result.GetMessage(), c.words)
			}
		})
	}
}

func TestARequestIsForgottenByAgeAndThenRefused(t *testing.T) {
	l := newCluster(t)
	cmd := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	made := cmd.GetRequestedUnixNs()
	first := proto.CloneOf(l.apply(proto.CloneOf(cmd)))

	cmd.ProposedUnixNs = made + requestMaxAge
	equal(t, "result at the limit", l.apply(cmd), first)
	before := l.state.Snapshot()
	cmd.ProposedUnixNs++
	equal(t, "reason above it", l.apply(cmd).GetReason(), logpb.Reason_REASON_TOO_OLD)
	equal(t, "forgotten", l.state.requests.forgotten, made)
	equal(t, "remembered", len(l.state.requests.rows), 0)
	equal(t, "remembered by a snapshot before", before.state.GetRemembered()[0].GetResult(), first)

	other := l.command(&logpb.UnloadModel{Name: "m"})
	other.RequestedUnixNs, other.ProposedUnixNs = made, cmd.ProposedUnixNs
	equal(t, "another request of that time", l.apply(other).GetReason(), logpb.Reason_REASON_TOO_OLD)
	other.RequestedUnixNs++
	equal(t, "too old is not remembered: the same id, made later", l.apply(other).GetReason(), logpb.Reason_REASON_NONE)
}

func TestARequestIsForgottenByCount(t *testing.T) {
	l := newCluster(t)
	cmd := l.command(&logpb.RaiseEpoch{To: 2})
	l.apply(proto.CloneOf(cmd))
	l.now -= int64(time.Millisecond) // all within a few µs, so that none is forgotten by its age
	for i := range requestMaxCount - 1 {
		next := command(&logpb.RemoveWorker{Name: "none"})
		next.RequestId, next.RequestedUnixNs, next.ProposedUnixNs = fmt.Sprint("n-", i), cmd.RequestedUnixNs+1+int64(i), cmd.RequestedUnixNs+1+int64(i)
		l.apply(next)
	}
	equal(t, "remembered", len(l.state.requests.rows), requestMaxCount)
	equal(t, "first request", l.apply(proto.CloneOf(cmd)).GetReason(), logpb.Reason_REASON_NONE)
	l.now += int64(time.Second)
	l.ok(&logpb.RaiseEpoch{To: 3})
	equal(t, "remembered", len(l.state.requests.rows), requestMaxCount)
	equal(t, "ids", len(l.state.requests.byID), requestMaxCount)
	equal(t, "first request, forgotten", l.apply(cmd).GetReason(), logpb.Reason_REASON_TOO_OLD)
}

// A leader whose clock was a year ahead leaves the state's time there. Requests must go on being remembered, and
// being told from those that are forgotten.
func TestALeaderWithItsClockAheadDoesNotMakeOthersTooOld(t *testing.T) {
	l := newCluster(t)
	ahead := l.command(&logpb.RaiseEpoch{To: 2})
	ahead.ProposedUnixNs += int64(365 * 24 * time.Hour)
	l.apply(ahead)

	late := l.command(&logpb.LoadModel{Name: "late", Source: "a.onnx"})
	cmd := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	first := proto.CloneOf(l.apply(proto.CloneOf(cmd)))
	l.ok(register("w1", "i1"))
	equal(t, "retry", l.apply(cmd), first)
	equal(t, "made before, applied after", l.apply(late).GetReason(), logpb.Reason_REASON_NONE)
}

// The requester's clock is ahead of the proposer's: a retry that comes after the request was forgotten must not have a
// second effect.
func TestARequesterWithItsClockAheadIsNotAppliedTwice(t *testing.T) {
	l := newCluster(t)
	cmd := l.command(&logpb.LoadModel{Name: "m", Source: "a.onnx"})
	cmd.RequestedUnixNs += int64(30 * time.Second)
	l.apply(proto.CloneOf(cmd))
	l.ok(&logpb.UnloadModel{Name: "m"})
	l.now += int64(11 * time.Minute)
	l.ok(register("w1", "i1"))
	equal(t, "reason", l.apply(cmd).GetReason(), logpb.Reason_REASON_TOO_OLD)
	equal(t, "models", len(l.state.Models()), 0)
}

func TestDigestsAreNotRemembered(t *testing.T) {
	l := newCluster(t)
	before := len(l.state.requests.rows)
	cmd := l.command(&logpb.TakeDigest{})
	first := l.apply(proto.CloneOf(cmd))
	equal(t, "remembered", len(l.state.requests.rows), before)
	equal(t, "digest", first.GetDigest(), l.state.Digest())
	equal(t, "digest of the same state", l.apply(cmd).GetDigest(), first.GetDigest())
	l.ok(register("w1", "i1"))
	if d := l.do(&logpb.TakeDigest{}).GetDigest(); d == first.GetDigest() || d != l.state.Digest() {
		t.Errorf("digest %s does not follow the state", d)
	}
}

func TestTheWordsOfARefusalAreNotInTheDigest(t *testing.T) {
	l := newCluster(t)
	l.refused(&logpb.RemoveWorker{Name: "w9"}, logpb.Reason_REASON_UNKNOWN_WORKER)
	state := proto.CloneOf(l.state.canonical())
	digest := func() string {
		s, err := build(state, Version)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	last := state.Remembered[len(state.Remembered)-1].Result
	last.Message = "put otherwise in a later release"
	equal(t, "digest after other words", digest(), l.state.Digest())
	last.Reason = logpb.Reason_REASON_CONFLICT
	equal(t, "equal after another reason", digest() == l.state.Digest(), false)
}
