package scheduler

import (
	"math/rand/v2"
	"testing"
	"time"
)

// ceiling of a resnet device: full batches without a pause.
const ceiling = 16 / 0.01733

// offer plays Poisson traffic of rate requests a second for the duration, with
// an SLO of 100 ms, and returns the share that was Done.
func offer(t *testing.T, s *State, rate float64, duration time.Duration) (done, all int, f *fakeFleet) {
	t.Helper()
	f = newFakeFleet(newOrrery(Options{}), t.Fatalf)
	rng := rand.New(rand.NewPCG(1, 2))
	f.fate = func(a Action) fakeFate {
		// Predictable within half a percent, as on a GPU.
		return fakeFate{duration: time.Duration(float64(trueTime(a)) * (0.995 + 0.01*rng.Float64()))}
	}
	f.start(s)
	var arrive func() []Event
	next := func() { f.after(time.Duration(rng.ExpFloat64()/rate*1e9), arrive) }
	arrive = func() []Event {
		if f.now > Instant(duration) {
			return nil
		}
		all++
		next()
		return []Event{f.submit(Request{ID: RequestID(all), Model: ModelID(1 + rng.IntN(len(s.Models))),
			Rows: 1, Arrived: f.now, Deadline: f.now.Add(100 * time.Millisecond)})}
	}
	next()
	f.run(Instant(duration + time.Second))
	for _, r := range f.requests {
		if r.completions != 1 {
			t.Fatalf("request %d was completed %d times", r.ID, r.completions)
		}
	}
	return f.reasons[Done], all, f
}

func TestHalfLoadIsAnsweredInTime(t *testing.T) {
	done, all, f := offer(t, resnets(1, 4, 100), ceiling/2, 20*time.Second)
	t.Logf("%d of %d; %v; %.1f requests a batch", done, all, f.reasons, float64(done)/float64(f.actions))
	if share := float64(done) / float64(all); share < 0.99 {
		t.Errorf("%.4f of the requests were answered in time, want at least 0.99", share)
	}
}

func TestOverloadKeepsGoodput(t *testing.T) {
	for _, test := range []struct {
		name            string
		workers, models int
		factor          float64
		want            float64
	}{
		{"1 device, 1 model, 200 %", 1, 1, 2, 0.9},
		{"1 device, 4 models, 120 %", 1, 4, 1.2, 0.8},
		{"1 device, 4 models, 200 %", 1, 4, 2, 0.85},
		{"1 device, 4 models, 1000 %", 1, 4, 10, 0.9},
		{"4 devices, 8 models, 200 %", 4, 8, 2, 0.85},
	} {
		t.Run(test.name, func(t *testing.T) {
			const duration = 5 * time.Second
			rate := ceiling * float64(test.workers)
			done, all, f := offer(t, resnets(test.workers, test.models, 100), test.factor*rate, duration)
			goodput := float64(done) / (duration + 100*time.Millisecond).Seconds()
			t.Logf("%d of %d: %.0f/s of %.0f/s; %v", done, all, goodput, rate, f.reasons)
			if goodput < test.want*rate {
				t.Errorf("goodput %.0f/s, want at least %.0f %% of the ceiling", goodput, 100*test.want)
			}
		})
	}
}

// trueTime is what an action of a resnet takes, whatever the policy thinks.
func trueTime(a Action) time.Duration {
	_, f := resnet(a.Model, "")
	if a.Kind != Infer {
		return f.WeightsLoad
	}
	for _, e := range f.Execution {
		if e.Rows >= a.Rows {
			return e.Time
		}
	}
	panic("too many rows")
}

// Twelve models want a device that has room for four.
func TestMoreModelsThanPages(t *testing.T) {
	done, all, f := offer(t, resnets(1, 12, 28), 60, 10*time.Second)
	t.Logf("%d of %d; %v", done, all, f.reasons)
	if share := float64(done) / float64(all); share < 0.9 {
		t.Errorf("%.4f of the requests were answered in time", share)
	}
}
