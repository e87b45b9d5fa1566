package fsm

import (
	"strings"
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestHoldings(t *testing.T) {
	l := newCluster(t)
	l.ok(register("w2", "i1"))
	l.ok(register("w1", "i1"))
	l.ok(&logpb.LoadModel{Name: "m", Source: "a"})
	l.ok(&logpb.LoadModel{Name: "n", Source: "a"})
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{
		pending(2, "w1", "i1"), pending(1, "w1", "i1"), pending(1, "w2", "i1"),
		pending(9, "w1", "i1"), pending(1, "w9", "i1"), loaded(2, "w2", "i0", digestA), // all of these are gone
	}})
	byWorker, byModel := l.state.Holdings(1), l.state.HoldingsOf("w1")
	equal(t, "holdings", len(l.state.canonical().GetHoldings()), 3)
	if len(byWorker) != 2 || byWorker[0].GetWorker() != "w1" || len(byModel) != 2 || byModel[0].GetModelId() != 1 {
		t.Errorf("got %v and %v", byWorker, byModel)
	}

	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{
		loaded(1, "w1", "i1", digestA), loaded(1, "w2", "i1", digestB), {Holding: pending(2, "w1", "i1").Holding, Remove: true},
	}})
	equal(t, "holdings read before", byWorker[0], pending(1, "w1", "i1").Holding)
	m := l.state.Model(1)
	equal(t, "info", m.GetInfo(), loaded(1, "", "", digestA).Info)
	equal(t, "engine", m.GetEngine(), "gomlx")
	equal(t, "first holding", l.state.Holding(1, "w1"), loaded(1, "w1", "i1", digestA).Holding)
	second := l.state.Holding(1, "w2")
	if second.GetStatus() != logpb.HoldingStatus_HOLDING_STATUS_FAILED ||
		!strings.Contains(second.GetError(), digestA) || !strings.Contains(second.GetError(), digestB) {
		t.Errorf("got %v", second)
	}
	if l.state.Holding(2, "w1") != nil {
		t.Error("not removed")
	}
	l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{Holding: loaded(1, "w1", "i0", "").Holding, Remove: true}}})
	equal(t, "a removal by another incarnation", len(l.state.Holdings(1)), 2)
	equal(t, "the engine may be named now", l.ok(&logpb.LoadModel{Name: "m", Source: "a", Engine: "gomlx"}).GetModelIds(), []uint64{1})
}

func TestABadReportFailsOnlyItsOwnHolding(t *testing.T) {
	for words, spoil := range map[string]func(*logpb.HoldingUpdate){
		"did not report its digest": func(u *logpb.HoldingUpdate) { u.Info = nil },
		"with 2 at place 2":         func(u *logpb.HoldingUpdate) { u.Info.ProfileRows = []uint32{1, 2, 2} },
		"with 0 at place 0":         func(u *logpb.HoldingUpdate) { u.Info.ProfileRows = []uint32{0, 2} },
	} {
		t.Run(words, func(t *testing.T) {
			l := newCluster(t)
			l.ok(register("w1", "i1"))
			l.ok(register("w2", "i1"))
			l.ok(&logpb.LoadModel{Name: "m", Source: "a"})
			bad := loaded(1, "w1", "i1", digestB)
			spoil(bad)
			l.ok(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{bad, loaded(1, "w2", "i1", digestA)}})
			equal(t, "digest", l.state.Model(1).GetInfo().GetDigest(), digestA)
			if h := l.state.Holding(1, "w1"); h.GetStatus() != logpb.HoldingStatus_HOLDING_STATUS_FAILED || !strings.Contains(h.GetError(), words) {
				t.Errorf("got %v", h)
			}
		})
	}
	l := serving(t)
	l.refused(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{pending(1, "w1", "i1"), {}}}, logpb.Reason_REASON_INVALID, "update 1 has no holding")
	odd := pending(1, "w1", "i1")
	odd.Holding.Status = 9
	l.refused(&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{odd}}, logpb.Reason_REASON_INVALID, "status 9")
}
