package histories

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// nemesis does to a cluster what it must survive.
type nemesis struct {
	t       *testing.T
	cluster *cluster
	choose  *rand.Rand
	// shortest and longest bound pauses and cuts.
	shortest, longest time.Duration
	// alone, if not nil, is called while a leader is cut off from its followers
	// and has not noticed.
	alone func(leader *devcluster.Process)
	// asleep, if not nil, is called while a leader is paused, and what it returns
	// when the leader goes on.
	asleep func(leader *devcluster.Process) (awake func())

	struck  map[string]int
	changes int // of leader or term
	revived int // processes that had stopped themselves
}

// newNemesis makes one whose pauses and cuts are of a tenth of a second at least.
func newNemesis(t *testing.T, k *crowd, choose *rand.Rand, longest time.Duration) *nemesis {
	return &nemesis{
		t: t, cluster: k.cluster, choose: choose, shortest: 100 * time.Millisecond, longest: longest,
		alone: k.insist, asleep: k.queue, struck: map[string]int{},
	}
}

// fault is one thing that may happen. What it has broken it mends.
type fault struct {
	name string
	// cuts says that it needs a network that can be cut.
	cuts   bool
	strike func(*nemesis, context.Context, *devcluster.Process) error
}

// faults are all that may happen. Each is told who leads.
func faults() []fault {
	return []fault{
		{"the leader is killed", false, func(n *nemesis, ctx context.Context, leader *devcluster.Process) error {
			return n.kill(ctx, leader)
		}},
		{"a controller is killed", false, func(n *nemesis, ctx context.Context, _ *devcluster.Process) error {
			return n.kill(ctx, n.any())
		}},
		{"the power fails", false, func(n *nemesis, ctx context.Context, _ *devcluster.Process) error {
			return n.kill(ctx, n.cluster.Controllers...)
		}},
		{"the leader is paused", false, (*nemesis).sleep},
		{"a controller is paused", false, func(n *nemesis, ctx context.Context, _ *devcluster.Process) error {
			return n.pause(ctx, n.any())
		}},
		{"the leader is left alone and dies", false, (*nemesis).strand},
		{"the leader is stopped", false, func(n *nemesis, ctx context.Context, leader *devcluster.Process) error {
			if err := leader.Stop(); err != nil {
				return err
			}
			return leader.Start()
		}},
		{"the leadership is transferred", false, (*nemesis).transfer},
		{"the leader is cut off", true, func(n *nemesis, ctx context.Context, leader *devcluster.Process) error {
			return n.cut(ctx, leader.Name)
		}},
		{"a controller is cut off", true, func(n *nemesis, ctx context.Context, _ *devcluster.Process) error {
			return n.cut(ctx, n.any().Name)
		}},
		{"the leader is cut off from its peers", true, (*nemesis).isolate},
		{"a controller is deaf", true, func(n *nemesis, ctx context.Context, leader *devcluster.Process) error {
			return n.deafen(ctx, n.cluster.without(leader)[n.choose.IntN(2)].Name, leader.Name)
		}},
		{"the leader is deaf", true, func(n *nemesis, ctx context.Context, leader *devcluster.Process) error {
			return n.deafen(ctx, leader.Name, n.cluster.without(leader)[0].Name, n.cluster.without(leader)[1].Name)
		}},
	}
}

// possible are the faults that this system allows, or those of some names.
func (n *nemesis) possible(names ...string) (all []fault) {
	for _, f := range faults() {
		named := len(names) == 0
		for _, name := range names {
			named = named || name == f.name
		}
		if named && (!f.cuts || n.cluster.lab != nil) {
			all = append(all, f)
		}
	}
	return all
}

// errRefused says that a fault which has to be asked for did not happen.
var errRefused = errors.New("it was refused")

// strike has one fault happen, and returns when the cluster has a leader again.
func (n *nemesis) strike(ctx context.Context, f fault) error {
	leader, term, err := n.cluster.awaitLeader(ctx, n.cluster.Controllers)
	if err != nil {
		return fmt.Errorf("before %q: %w", f.name, err)
	}
	began := time.Now()
	if err := f.strike(n, ctx, leader); errors.Is(err, errRefused) {
		n.t.Logf("%s: %v", f.name, err)
		return nil
	} else if err != nil {
		return fmt.Errorf("%s (%s led): %w", f.name, leader.Name, err)
	}
	took := time.Since(began)
	if err := n.revive(); err != nil {
		return err
	}
	next, now, err := n.cluster.awaitLeader(ctx, n.cluster.Controllers)
	if err != nil {
		return fmt.Errorf("after %q (%s led): %w", f.name, leader.Name, err)
	}
	n.struck[f.name]++
	if now != term {
		n.changes++
	}
	n.t.Logf("%s: %s led in term %.0f, the fault took %v, %s leads in term %.0f %v later", f.name, leader.Name, term,
		took.Round(time.Millisecond), next.Name, now, (time.Since(began) - took).Round(time.Millisecond))
	return nil
}

// total is how many faults there were.
func (n *nemesis) total() (total int) {
	for _, count := range n.struck {
		total += count
	}
	return total
}

// revive starts what has stopped itself, as a supervisor would.
func (n *nemesis) revive() error {
	for _, p := range n.cluster.All() {
		select {
		case <-p.Exited():
			n.t.Logf("%s had stopped itself (%v):\n%s", p.Name, p.Wait(), p.LogTail(3))
			n.revived++
			if err := p.Start(); err != nil {
				return err
			}
		default:
		}
	}
	return nil
}

func (n *nemesis) any() *devcluster.Process {
	return n.cluster.Controllers[n.choose.IntN(len(n.cluster.Controllers))]
}

// between is a random time.
func (n *nemesis) between(least, most time.Duration) time.Duration {
	return least + time.Duration(n.choose.Int64N(int64(most-least)+1))
}

// while is how long a pause or a cut lasts: more often short than long.
func (n *nemesis) while() time.Duration {
	return n.between(n.shortest, n.between(n.shortest, n.longest))
}

func (n *nemesis) kill(ctx context.Context, all ...*devcluster.Process) error {
	for _, p := range all {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	pause(ctx, n.between(0, 1200*time.Millisecond))
	for _, p := range all {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

func (n *nemesis) pause(ctx context.Context, p *devcluster.Process) error {
	if err := p.Pause(); err != nil {
		return err
	}
	pause(ctx, n.while())
	return p.Resume()
}

// sleep pauses the leader. When it goes on, another one may lead, and it has yet
// to notice.
func (n *nemesis) sleep(ctx context.Context, leader *devcluster.Process) error {
	if err := leader.Pause(); err != nil {
		return err
	}
	if n.asleep != nil {
		defer n.asleep(leader)()
	}
	pause(ctx, n.while())
	return leader.Resume()
}

// strand pauses the leader's followers, so that nothing it takes in can be
// committed, and kills it. What it has acknowledged meanwhile is lost if it was
// not committed.
func (n *nemesis) strand(ctx context.Context, leader *devcluster.Process) error {
	others := n.cluster.without(leader)
	var failed []error
	for _, p := range others {
		failed = append(failed, p.Pause())
	}
	n.leaveAlone(leader)
	pause(ctx, n.between(0, 250*time.Millisecond))
	failed = append(failed, leader.Kill())
	for _, p := range others {
		failed = append(failed, p.Resume())
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	// Another one leads before it is back: else it would bring along what it
	// alone has.
	_, _, err := n.cluster.awaitLeader(ctx, others)
	return errors.Join(err, leader.Start())
}

// transfer asks for another leader.
func (n *nemesis) transfer(ctx context.Context, _ *devcluster.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at := n.choose.IntN(len(n.cluster.controls))
	if _, err := n.cluster.controls[at].TransferLeadership(ctx, &controlpb.TransferLeadershipRequest{}); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return nil
}

// cut cuts a controller off from everybody.
func (n *nemesis) cut(ctx context.Context, name string) error {
	if err := n.cluster.lab.Cut(name); err != nil {
		return err
	}
	pause(ctx, n.while())
	return n.cluster.lab.HealAll()
}

// isolate cuts the leader off from the other controllers alone. Clients reach
// it, and so it could go on to serve them.
func (n *nemesis) isolate(ctx context.Context, leader *devcluster.Process) error {
	for _, p := range n.cluster.without(leader) {
		if err := n.cluster.lab.CutBetween(leader.Name, p.Name); err != nil {
			return err
		}
	}
	n.leaveAlone(leader)
	pause(ctx, n.while())
	return n.cluster.lab.HealAll()
}

func (n *nemesis) leaveAlone(leader *devcluster.Process) {
	if n.alone != nil {
		n.alone(leader)
	}
}

// deafen has one controller not hear some others, which hear it.
func (n *nemesis) deafen(ctx context.Context, deaf string, others ...string) error {
	for _, other := range others {
		if err := n.cluster.lab.CutOneWay(other, deaf); err != nil {
			return err
		}
	}
	pause(ctx, n.while())
	return n.cluster.lab.HealAll()
}

// heal mends everything.
func (n *nemesis) heal(ctx context.Context) error {
	if n.cluster.lab != nil {
		if err := n.cluster.lab.HealAll(); err != nil {
			return err
		}
	}
	for _, p := range n.cluster.All() {
		if err := p.Signal(syscall.SIGCONT); err != nil {
			return err
		}
	}
	if err := n.revive(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	return n.cluster.WaitReady(ctx)
}

// summary says what happened how often.
func (n *nemesis) summary() string {
	var parts []string
	for _, f := range faults() {
		if count := n.struck[f.name]; count > 0 {
			parts = append(parts, fmt.Sprintf("%d × %s", count, f.name))
		}
	}
	return strings.Join(parts, ", ")
}
