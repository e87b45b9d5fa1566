package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// entry is a way into the cluster.
type entry struct {
	name  string
	infer func(context.Context, *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error)
}

// unary is an entry for clients of the Open Inference Protocol.
func unary(t *testing.T, p *devcluster.Process) entry {
	service := inferencepb.NewGRPCInferenceServiceClient(dial(t, p, "inference"))
	return entry{p.Name + " by ModelInfer", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
		return service.ModelInfer(ctx, r)
	}}
}

// streamed is an entry by our own client.
func streamed(name string, cl *client.Client) entry {
	return entry{name + " by our client", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
		response, _, err := cl.Infer(ctx, r)
		return response, err
	}}
}

// both are the two entries of each of some controllers.
func both(t *testing.T, controllers ...*devcluster.Process) (entries []entry) {
	for _, p := range controllers {
		entries = append(entries, unary(t, p), streamed(p.Name, clientOf(t, p)))
	}
	return entries
}

// outcome is what became of one request.
type outcome struct {
	entry string
	sent  time.Time
	took  time.Duration
	err   error
}

// load is a steady load of the MLP: so many requests a second, whether or not
// earlier ones have been answered, on several entries in turn.
type load struct {
	t        *testing.T
	rate     int
	deadline time.Duration
	entries  []entry
	pictures []picture
	began    time.Time
	stop     chan struct{}
	stopOnce func()
	wait     sync.WaitGroup

	mu       sync.Mutex
	sent     int
	pending  map[int]time.Time // when they were sent
	outcomes []outcome
}

// leastRate is how many requests a second make a load that counts; rate is what
// is sent.
const (
	leastRate = 100
	rate      = 120
)

// startLoad sends requests until end, and returns once many have been answered.
func startLoad(t *testing.T, deadline time.Duration, entries ...entry) *load {
	t.Helper()
	l := &load{
		t: t, rate: rate, deadline: deadline, entries: entries, pictures: pictures(t),
		began: time.Now(), stop: make(chan struct{}), pending: map[int]time.Time{},
	}
	l.stopOnce = sync.OnceFunc(func() { close(l.stop) })
	l.wait.Go(l.run)
	t.Cleanup(func() { l.stopOnce(); l.wait.Wait() })
	l.awaitAnswers(rate / 2)
	return l
}

// loadFollowers loads all controllers but the leader; and, by a client that
// knows the others too, also that one. On a busy machine the leadership may
// change meanwhile: then it is done again.
func (c *cluster) loadFollowers(t *testing.T, deadline time.Duration) (leader *devcluster.Process, l *load) {
	t.Helper()
	for range 10 {
		leader = awaitLeader(t, c.Controllers...)
		others := c.without(leader)
		at := append([]*devcluster.Process{leader}, others...)
		l = startLoad(t, deadline, append(both(t, others...), streamed(leader.Name+" and others", clientOf(t, at...)))...)
		if awaitLeader(t, c.Controllers...) == leader {
			return leader, l
		}
		l.end(time.Now(), time.Now())
		t.Logf("%s has lost the leadership by itself", leader.Name)
	}
	t.Fatal("no leader lasts")
	return nil, nil
}

func (l *load) run() {
	for i := 0; ; i++ {
		// By the clock, so that a late start of one does not slow the rest down.
		due := l.began.Add(time.Duration(i) * time.Second / time.Duration(l.rate))
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-l.stop:
			timer.Stop()
			return
		}
		l.mu.Lock()
		l.sent++
		l.pending[i] = time.Now()
		l.mu.Unlock()
		l.wait.Go(func() { l.one(i) })
	}
}

func (l *load) one(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), l.deadline)
	defer cancel()
	e, p := l.entries[i%len(l.entries)], l.pictures[i/len(l.entries)%len(l.pictures)]
	sent := time.Now()
	response, err := e.infer(ctx, request(mlp, p))
	took := time.Since(sent)
	if err == nil {
		err = compare(response, mlp, p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, i)
	l.outcomes = append(l.outcomes, outcome{e.name, sent, took, err})
}

// awaitAnswers waits for so many more answers to requests of every entry.
func (l *load) awaitAnswers(n int) {
	l.t.Helper()
	since := time.Now()
	eventually(l.t, recoverTimeout, fmt.Sprintf("%d answers", n), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		good, last := map[string]int{}, map[string]error{}
		for _, o := range l.outcomes {
			if o.err == nil && o.sent.After(since) {
				good[o.entry]++
			}
			last[o.entry] = cmp.Or(o.err, last[o.entry])
		}
		for _, e := range l.entries {
			if good[e.name] < n/len(l.entries) {
				return fmt.Errorf("only %d at %s, whose last error is %v", good[e.name], e.name, last[e.name])
			}
		}
		return nil
	})
}

// stuck is how many requests have been waiting for their answers for so long.
func (l *load) stuck(since time.Duration) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sent := range l.pending {
		if time.Since(sent) > since {
			n++
		}
	}
	return n
}

// end stops the load, waits for all answers and prints what became of the
// requests: before a fault, between from and to, and after it. It fails the
// test when one request failed, when an answer was wrong, or when there was no
// real load.
func (l *load) end(from, to time.Time) {
	l.t.Helper()
	l.stopOnce()
	l.wait.Wait()
	lasted := time.Since(l.began)
	slices.SortFunc(l.outcomes, func(a, b outcome) int { return a.sent.Compare(b.sent) })
	failed, wrong := 0, 0
	var before, during, after []time.Duration
	for _, o := range l.outcomes {
		switch answered := o.sent.Add(o.took); {
		case answered.Before(from):
			before = append(before, o.took)
		case o.sent.After(to):
			after = append(after, o.took)
		default:
			during = append(during, o.took)
		}
		if o.err == nil {
			continue
		}
		if _, ok := errors.AsType[wrongAnswer](o.err); ok {
			wrong++
		} else {
			failed++
		}
		if failed+wrong <= 5 {
			l.t.Errorf("request sent at %s, %v after the fault, through %s, after %v: %v",
				o.sent.Format("15:04:05.000"), ms(o.sent.Sub(from)), o.entry, ms(o.took), o.err)
		}
	}
	l.t.Logf("load: %d requests in %v (%.0f a second, asked %d), deadline %v, entries %v",
		len(l.outcomes), ms(lasted), float64(l.sent)/lasted.Seconds(), l.rate, l.deadline, names(l.entries))
	l.t.Logf("load: %d failed, %d wrong; latency before %v, during %v, after %v; longest time without an answer %v",
		failed, wrong, spread(before), spread(during), spread(after), ms(l.longestGap()))
	if failed+wrong > 0 {
		l.t.Errorf("of %d requests %d failed and %d were answered wrongly", len(l.outcomes), failed, wrong)
	}
	if float64(l.sent) < leastRate*lasted.Seconds() || l.sent < leastRate {
		l.t.Errorf("the load was not real: %d requests in %v", l.sent, lasted)
	}
}

// sentBetween is how many requests were sent in an interval.
func (l *load) sentBetween(from, to time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.outcomes {
		if o.sent.After(from) && o.sent.Before(to) {
			n++
		}
	}
	return n
}

// longestGap is the longest time without an answer.
func (l *load) longestGap() (gap time.Duration) {
	last := l.began
	answers := make([]time.Time, 0, len(l.outcomes))
	for _, o := range l.outcomes {
		answers = append(answers, o.sent.Add(o.took))
	}
	slices.SortFunc(answers, time.Time.Compare)
	for _, at := range answers {
		gap, last = max(gap, at.Sub(last)), at
	}
	return gap
}

func names(entries []entry) (all []string) {
	for _, e := range entries {
		all = append(all, e.name)
	}
	return all
}

// ms rounds to what a person wants to know.
func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// spread describes latencies.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.SortFunc(d, cmp.Compare)
	tenth := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %v p99 %v max %v (%d)", tenth(d[len(d)/2]), tenth(d[len(d)*99/100]), tenth(d[len(d)-1]), len(d))
}
