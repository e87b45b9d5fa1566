package workerd

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// nextPong waits for a heartbeat that is asked for from now on.
func (l *leader) nextPong() *sessionpb.Pong {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	after := l.pong.GetSequence()
	l.mu.Unlock()
	var p *sessionpb.Pong
	l.until("pong", func() bool {
		p = l.pong
		return p.GetSequence() > after
	})
	return p
}

func TestHeartbeatsTellWhatEachDeviceHasAndDoes(t *testing.T) {
	slow := func(o *Options, e *fakeEngine) {
		o.Devices = append(o.Devices, DeviceOptions{Kind: "gpu", PageBytes: 100, Pages: 7})
		e.sources["fake:a"].runTime = func(int, int) time.Duration { return time.Second }
	}
	inBubble(t, slow, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		p := l.nextPong()
		if len(p.Devices) != 2 || p.Devices[1].Index != 1 || p.Devices[0].FreePages != 5 || p.Devices[1].FreePages != 7 {
			t.Fatalf("devices: %v", p.Devices)
		}
		if d := p.Devices[0]; !d.ResidentChanged || d.Resident != nil || d.ExecutingAction != 0 || d.ExecutingModel != 0 || d.Queued != 0 {
			t.Errorf("the first heartbeat: %v", d)
		}
		if d := l.nextPong().Devices[0]; d.ResidentChanged {
			t.Errorf("the second heartbeat, and nothing has changed: %v", d)
		}
		l.hold(1, "fake:a")
		l.payload("x", 1, 2)
		id := l.do(infer(1, "x"))
		l.do(infer(1, "never comes"))
		d := l.nextPong().Devices[0]
		if !d.ResidentChanged || !slices.Equal(d.Resident, []uint64{1}) || d.FreePages != 2 {
			t.Errorf("after the weights came: %v", d)
		}
		if d.ExecutingAction != id || d.ExecutingModel != 1 || d.Queued != 2 {
			t.Errorf("while action %d runs and another one waits: %v", id, d)
		}
		first, now := d.ExecutingNs, l.nextPong().Devices[0]
		if now.ResidentChanged || now.Resident != nil || now.ExecutingNs-first != int64(200*time.Millisecond) {
			t.Errorf("a fifth of a second later: %v", now)
		}
		l.wants(ok, id)
		if d := l.nextPong().Devices[0]; d.ExecutingAction != 0 || d.ExecutingModel != 0 || d.ExecutingNs != 0 {
			t.Errorf("after action %d: %v", id, d)
		}

		// Another session is told from the start, and of what runs for this one only the model.
		l.payload("y", 1, 2)
		l.do(infer(1, "y"))
		synctest.Wait()
		next := r.lead(5, "t")
		d = next.nextPong().Devices[0]
		if !d.ResidentChanged || !slices.Equal(d.Resident, []uint64{1}) || d.ExecutingAction != 0 || d.ExecutingModel != 1 || d.ExecutingNs == 0 {
			t.Errorf("the next leader's first heartbeat: %v", d)
		}
		time.Sleep(1050 * time.Millisecond) // until it has run, and between two heartbeats
		next.expect(ok, evictWeights(1))
		if d := next.nextPong().Devices[0]; !d.ResidentChanged || d.Resident != nil || d.FreePages != 5 {
			t.Errorf("after the eviction: %v", d)
		}
	})
}

// While a profile has the weights they may be gone at any moment.
func TestHeartbeatsTellThatAProfileHasTheWeights(t *testing.T) {
	slow := func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(int, int) time.Duration { return 100 * time.Millisecond }
	}
	inBubble(t, slow, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		if d := l.nextPong().Devices[0]; !slices.Equal(d.Resident, []uint64{1}) {
			t.Errorf("before: %v", d)
		}
		id := l.do(profile(1, &sessionpb.Profile{Runs: 3, WeightsLoads: 1}))
		if d := l.nextPong().Devices[0]; !d.ResidentChanged || d.Resident != nil || d.ExecutingAction != id {
			t.Errorf("during: %v", d)
		}
		l.wants(ok, id)
		if d := l.nextPong().Devices[0]; !d.ResidentChanged || !slices.Equal(d.Resident, []uint64{1}) {
			t.Errorf("after: %v", d)
		}
	})
}

func TestReportsTellWhichActionsAreOutstanding(t *testing.T) {
	slow := func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(int, int) time.Duration { return time.Second }
	}
	inBubble(t, slow, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		if m := l.report(0).Report; m.LastAction != 0 || m.Outstanding != nil {
			t.Errorf("the first report: %v", m)
		}
		l.hold(1, "fake:a") // actions 1 and 2
		l.payload("x", 1, 2)
		running := l.do(infer(1, "x"))
		waiting := l.do(infer(1, "never comes"))
		l.expect(tooLate, within(loadWeights(1), 0, time.Nanosecond))
		loading := l.do(loadModel(2, "fake:b"))
		r3 := l.freshReport()
		if r3.LastAction != loading || !slices.Equal(r3.Outstanding, []uint64{running, waiting, loading}) {
			t.Errorf("last %d, outstanding %v; want %d, and %d, %d, %d", r3.LastAction, r3.Outstanding, loading, running, waiting, loading)
		}
		l.wants(ok, loading)
		if r4 := l.freshReport(); r4.LastAction != loading || !slices.Equal(r4.Outstanding, []uint64{waiting}) {
			t.Errorf("last %d, outstanding %v; want %d, and %d", r4.LastAction, r4.Outstanding, loading, waiting)
		}

		// Ids belong to their session.
		l.payload("y", 1, 2)
		l.do(infer(1, "y"))
		synctest.Wait()
		next := r.lead(5, "t")
		if m := next.report(0).Report; m.LastAction != 0 || m.Outstanding != nil || m.Devices[0].Queued != 1 {
			t.Errorf("the next leader's first report: %v", m)
		}
	})
}

// What a report calls outstanding is answered after it, and what it doesn't was answered before: in the stream's order, also
// when all of it is sent in one go.
func TestReportsAndResultsKeepTheirOrder(t *testing.T) {
	inBubble(t, func(_ *Options, e *fakeEngine) { e.sources["fake:a"].loadTime = 0 }, func(t *testing.T, r *rig) {
		control, err := r.dial(4, "s").service.Control(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		control.Send(&sessionpb.LeaderMessage{
			Open:                  &sessionpb.Open{Leader: &sessionpb.Leader{ClusterId: "cluster", Term: 4}, SessionId: "s"},
			RegisteredIncarnation: "w1-first",
		})
		const rounds = 200
		for n := uint64(1); n <= rounds; n++ {
			load := loadModel(n, "fake:a")
			load.Id = n
			control.Send(&sessionpb.LeaderMessage{Actions: []*sessionpb.Action{load}, Report: true})
		}
		answered := map[uint64]bool{}
		var last uint64
		outstanding := 0
		for reports := 0; reports < rounds || len(answered) < rounds; {
			m, err := control.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.Report != nil && len(m.Results) > 0 {
				t.Fatalf("a report and results in one message: %v", m)
			}
			for _, res := range m.Results {
				answered[res.ActionId] = true
			}
			if m.Report == nil || m.Opened != nil {
				continue
			}
			reports++
			if m.Report.LastAction < last {
				t.Errorf("the last action was %d, now %d", last, m.Report.LastAction)
			}
			last = m.Report.LastAction
			outstanding += len(m.Report.Outstanding)
			for id := uint64(1); id <= last; id++ {
				if open := slices.Contains(m.Report.Outstanding, id); open == answered[id] {
					t.Fatalf("after action %d, action %d: outstanding %v, answered %v", last, id, open, answered[id])
				}
			}
		}
		if outstanding == 0 {
			t.Error("no report had an outstanding action: nothing was tested")
		}
	})
}

func TestMergingKeepsTheOrder(t *testing.T) {
	result := func(id uint64) *sessionpb.WorkerMessage {
		return &sessionpb.WorkerMessage{Results: []*sessionpb.Result{{ActionId: id}}}
	}
	pong, report := &sessionpb.WorkerMessage{Pong: &sessionpb.Pong{}}, &sessionpb.WorkerMessage{Report: &sessionpb.Report{}}
	goodbye := &sessionpb.WorkerMessage{Leaving: true}
	var got []int
	for _, m := range mergeControl([]*sessionpb.WorkerMessage{result(1), result(2), report, result(3), pong, goodbye, result(4), result(5)}) {
		got = append(got, len(m.Results))
		if (m.Leaving || m.Report != nil) && len(m.Results) > 0 {
			t.Errorf("results share a message with %v", m)
		}
	}
	if want := []int{2, 0, 1, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("results by message %v, want %v", got, want)
	}
}
