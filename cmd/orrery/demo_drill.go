package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// errLeaderMoved says that the controller that was to be killed does not lead
// any more: on a machine without a core to spare an election may come by itself.
var errLeaderMoved = errors.New("leadership moved by itself before the leader could be killed")

// drill keeps a load on the followers, kills the leader in the midst of it, and
// goes on until its successor has served for a while.
func (d *demo) drill(ctx context.Context) error {
	d.title("Failover: killing the leader under load")
	for attempt := 1; ; attempt++ {
		if _, err := d.findLeader(ctx); err != nil {
			return err
		}
		err := d.drillOnce(ctx)
		if !errors.Is(err, errLeaderMoved) || attempt == 3 {
			return err
		}
		d.say("%v; once more.", err)
	}
}

func (d *demo) drillOnce(ctx context.Context) error {
	followers := d.followers()
	questions, err := d.questions(ctx, demoModels()[0])
	if err != nil {
		return err
	}
	l := &demoLoad{questions: questions, interval: time.Second / time.Duration(d.o.rate), start: time.Now()}
	for _, f := range followers {
		l.clients = append(l.clients, f.Client)
	}
	d.say("%d requests/s to %s at the followers %s and %s, each with a deadline of %v.",
		d.o.rate, demoModels()[0], followers[0].Name, followers[1].Name, requestDeadline)

	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { l.run(ctx, stop) })
	err = d.failover(ctx, l, followers)
	close(stop)
	sending.Wait()
	d.report.samples = l.samples
	return err
}

// failover is what happens while the load runs.
func (d *demo) failover(ctx context.Context, l *demoLoad, followers []*demoMember) error {
	if err := wait(ctx, d.o.before); err != nil {
		return err
	}
	victim := d.leader
	if _, err := d.findLeader(ctx); err != nil {
		return err
	}
	if d.leader != victim {
		return errLeaderMoved
	}
	watching, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	killed := time.Now()
	if err := victim.Kill(); err != nil {
		return err
	}
	d.say("%6.1fs  %s, the leader, got SIGKILL.", time.Since(l.start).Seconds(), victim.Name)
	name, at, err := newLeader(watching, followers, victim.Name)
	if err != nil {
		return err
	}
	d.report.killed, d.report.elected = killed.Sub(l.start), at.Sub(l.start)
	d.say("%6.1fs  %s leads, %v after the kill.", time.Since(l.start).Seconds(), name, short(at.Sub(killed)))
	for !l.answeredSince(d.report.elected) {
		if err := wait(watching, leaderPoll); err != nil {
			return errors.New("no request was answered after the election")
		}
	}
	if err := wait(ctx, recovery+d.o.after); err != nil {
		return err
	}
	d.say("%6.1fs  %s has served for %v.", time.Since(l.start).Seconds(), name, time.Since(at).Round(100*time.Millisecond))
	d.leader, d.report.victim = d.member(name), victim
	return nil
}

// newLeader polls all survivors until one names a leader that is not the old
// one, and returns that name and when it came.
func newLeader(ctx context.Context, survivors []*demoMember, old string) (string, time.Time, error) {
	type found struct {
		name string
		at   time.Time
	}
	first := make(chan found, len(survivors))
	var polls sync.WaitGroup
	defer polls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, s := range survivors {
		polls.Go(func() {
			for ctx.Err() == nil {
				status, err := s.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
				if err == nil && status.Leader != "" && status.Leader != old {
					first <- found{status.Leader, time.Now()}
					return
				}
				_ = wait(ctx, leaderPoll)
			}
		})
	}
	select {
	case f := <-first:
		return f.name, f.at, nil
	case <-ctx.Done():
		return "", time.Time{}, fmt.Errorf("no survivor named a new leader: %w", ctx.Err())
	}
}

// rejoin brings the killed controller back, and waits until it is a voter that
// knows what the others know.
func (d *demo) rejoin(ctx context.Context) error {
	victim := d.report.victim
	d.title("Recovery: bringing " + victim.Name + " back")
	since := time.Now()
	if err := victim.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	if _, err := untilWhole(ctx, victim.Client, len(d.members)); err != nil {
		return fmt.Errorf("bring %s back: %w; the end of its log:\n%s", victim.Name, err, victim.LogTail(10))
	}
	d.report.rejoined = time.Since(since)
	status, err := untilWhole(ctx, d.leader.Client, len(d.members))
	if err != nil {
		return err
	}
	d.say("%s is a voter again after %v.\n", victim.Name, short(d.report.rejoined))
	clusterTable(d.out, status)
	return nil
}

// untilWhole polls a controller until it knows that so many replicas are
// voters, can be reached, and have equal digests.
func untilWhole(ctx context.Context, c *client.Client, voters int) (*controlpb.ClusterStatusResponse, error) {
	var last error
	for {
		status, err := c.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
		switch {
		case err != nil:
			last = err
		case whole(status, voters):
			return status, nil
		default:
			last = fmt.Errorf("leader %q, %s of which not all are voters within reach, digests %s",
				status.Leader, plural(len(status.Replicas), "replica"), digests(status))
		}
		if wait(ctx, 10*leaderPoll) != nil {
			return nil, last
		}
	}
}

func whole(s *controlpb.ClusterStatusResponse, voters int) bool {
	for _, r := range s.Replicas {
		if !r.Voter || !r.Reachable {
			return false
		}
	}
	return s.Leader != "" && len(s.Replicas) == voters && digestsEqual(s)
}

// wait sleeps for d, or less if ctx ends, which is an error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
