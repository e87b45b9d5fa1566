package workerd

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// witness is a log that can be read while it is written.
type witness struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (w *witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *witness) logger(level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: w, Level: level, DisableTime: true})
}

// lines are those that contain all parts.
func (w *witness) lines(parts ...string) (found []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
lines:
	for line := range strings.Lines(w.log.String()) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

func TestARefusedWorkerSaysSoOnceAndGoesOn(t *testing.T) {
	log := &witness{}
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Logger = log.logger(hclog.Debug) }, func(t *testing.T, r *rig) {
		refuse := func(l *leader, why string) {
			l.send(&sessionpb.LeaderMessage{Refusal: why})
			synctest.Wait()
		}
		first := r.dial(4, "s")
		first.openControl()
		for range 3 {
			refuse(first, "w1 at 10.0.0.9:8020 is alive")
		}
		if got := r.worker.Stats(); got.Refused != "w1 at 10.0.0.9:8020 is alive" || got.Registered {
			t.Errorf("%+v", got)
		}
		// The leader asks again, in another session.
		again := r.dial(4, "t")
		again.openControl()
		refuse(again, "w1 at 10.0.0.9:8020 is alive")
		refuse(again, "w1 at 10.0.0.7:8020 is alive")
		if n := len(log.lines("[ERROR]", "refuses")); n != 2 {
			t.Errorf("%d errors in the log, want one for each of two texts", n)
		}
		if n := len(log.lines("[DEBUG]", "refuses")); n != 3 {
			t.Errorf("%d repetitions at level debug, want 3", n)
		}

		// A succeeded leader's opinion is not asked for.
		refuse(first, "stale")
		if got := r.worker.Stats().Refused; got != "w1 at 10.0.0.7:8020 is alive" {
			t.Errorf("refused: %q", got)
		}
		first.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		synctest.Wait()
		if got := r.worker.Stats(); got.Refused == "" || got.Registered {
			t.Errorf("a succeeded leader registered the worker: %+v", got)
		}

		again.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		again.expect(ok, loadModel(1, "fake:a"))
		if got := r.worker.Stats(); got.Refused != "" || !got.Registered {
			t.Errorf("after the registration: %+v", got)
		}
		refuse(again, "w1 at 10.0.0.7:8020 is alive")
		again.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first"})
		again.expect(ok, loadModel(1, "fake:a"))
		if got := r.worker.Stats(); got.Refused != "" {
			t.Errorf("after the second registration: %+v", got)
		}
		if n := len(log.lines("[ERROR]", "refuses")); n != 3 {
			t.Errorf("%d errors in the log, want another one for the refusal of a registered worker", n)
		}
	})
}

func TestOnlyTheNewestLeaderLetsAWorkerGo(t *testing.T) {
	log := &witness{}
	inBubble(t, func(o *Options, _ *fakeEngine) { o.Logger = log.logger(hclog.Info) }, func(t *testing.T, r *rig) {
		old := r.lead(4, "s")
		old.report(0)
		next := r.lead(5, "t")
		next.hold(1, "fake:a")
		old.send(&sessionpb.LeaderMessage{Leave: true})
		time.Sleep(time.Minute)
		select {
		case <-r.worker.Left():
			t.Fatal("a succeeded leader ended the worker")
		default:
		}
		next.payload("x", 1, 2)
		running := next.do(infer(1, "x"))
		synctest.Wait()
		next.send(&sessionpb.LeaderMessage{Leave: true})
		next.send(&sessionpb.LeaderMessage{Leave: true}) // it may say so twice
		next.wants(ok, running)
		if err := <-r.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.ended <- nil
		if n := len(log.lines("[INFO]", "drained by the leader", "term=5")); n != 1 {
			t.Errorf("%d lines say why the worker ends, want 1", n)
		}
	})
}

func TestAWorkerSaysGoodbyeBeforeItRefuses(t *testing.T) {
	slow := func(_ *Options, e *fakeEngine) {
		e.sources["fake:a"].runTime = func(int, int) time.Duration { return 500 * time.Millisecond }
	}
	for name, end := range map[string]func(*rig, *leader){
		"when it is stopped":            func(r *rig, _ *leader) { r.stop() },
		"when the leader lets it go":    func(_ *rig, l *leader) { l.send(&sessionpb.LeaderMessage{Leave: true}) },
		"when both happen at that time": func(r *rig, l *leader) { l.send(&sessionpb.LeaderMessage{Leave: true}); r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, slow, func(t *testing.T, r *rig) {
				old := r.lead(3, "r")
				old.report(0)
				l := r.lead(4, "s")
				l.hold(1, "fake:a")
				l.payload("x", 1, 2)
				running, waiting := l.do(infer(1, "x")), l.do(infer(1, "never comes"))
				synctest.Wait()
				end(r, l)
				synctest.Wait()
				late := l.do(infer(1, "z"))
				l.until("end of stream", func() bool { return l.err != nil })
				old.until("end of stream", func() bool { return old.err != nil })
				if !old.goodbye {
					t.Error("the succeeded leader was not told")
				}
				for id, want := range map[uint64]sessionpb.ResultCode{running: ok, waiting: shuttingDown, late: shuttingDown} {
					if got := l.wants(want, id); want == shuttingDown && !l.afterGoodbye[got.ActionId] {
						t.Errorf("action %d was refused before the goodbye", id)
					}
				}
				l.output("x")
				if len(r.engine.ran()) != 1 {
					t.Errorf("%d runs", len(r.engine.ran()))
				}
			})
		})
	}
}

// A leader that only asks who is there takes nothing away from the one that has a
// session, even if that is itself.
func TestAProbeChangesNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r *rig) {
		l := r.lead(4, "s")
		l.hold(1, "fake:a")
		probe := r.dial(4, "p")
		probe.open.Probe = true
		probe.openControl()
		probe.openData()
		if report := probe.report(0); report.GetReport().GetWorker().GetIncarnation() != "w1-first" {
			t.Errorf("the probe was told %v", report)
		}
		l.payload("x", 1, 2)
		l.wants(ok, l.do(infer(1, "x")))
		probe.wants(sessionpb.ResultCode_RESULT_CODE_STALE, probe.do(infer(1, "y")))
		probe.send(&sessionpb.LeaderMessage{RegisteredIncarnation: "w1-first", Leave: true, Refusal: "another one is alive"})
		synctest.Wait()
		select {
		case <-r.worker.Left():
			t.Error("a probe ended the worker")
		default:
		}
		if got := r.worker.Stats().Refused; got != "another one is alive" {
			t.Errorf("it was told %q", got)
		}
		l.payload("z", 1, 2)
		l.wants(ok, l.do(infer(1, "z")))
	})
}
