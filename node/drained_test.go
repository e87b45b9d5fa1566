package node

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// lead opens a session with a worker, as a leader that the worker has not heard of would.
func (c *cluster) lead(from, worker string, term uint64) sessionpb.Session_ControlClient {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+worker+":8020", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.net.Host(from).Dial(ctx, address)
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	control, err := sessionpb.NewSessionClient(conn).Control(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := control.Send(&sessionpb.LeaderMessage{Open: &sessionpb.Open{
		Leader: &sessionpb.Leader{ClusterId: "cluster", Epoch: 1, Term: term, Name: from}, SessionId: fmt.Sprint(from, term),
	}}); err != nil {
		c.t.Fatal(err)
	}
	if m, err := control.Recv(); err != nil || m.Opened == nil || m.Opened.Stale {
		c.t.Fatalf("%v, %v", m, err)
	}
	return control
}

// alone runs a test with a worker that never hears of a controller.
func alone(t *testing.T, test func(t *testing.T, c *cluster)) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		for _, name := range controllerNames {
			c.stop(name)
			c.net.Isolate(name)
		}
		test(t, c)
	})
}

func TestADrainedWorkerEndsInOrder(t *testing.T) {
	alone(t, func(t *testing.T, c *cluster) {
		n, err := NewWorker(c.workerConfig("w1"), Options{Network: c.net.Host("w1"), Logger: c.logger("w1")})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		c.start("w1", func(ctx context.Context) error { ended <- n.Run(ctx); return nil })
		leader := c.lead("l", "w1", 4)
		if err := leader.Send(&sessionpb.LeaderMessage{Leave: true}); err != nil {
			t.Fatal(err)
		}
		goodbye := false
		for {
			m, err := leader.Recv()
			if err != nil {
				break
			}
			goodbye = goodbye || m.Leaving
		}
		select {
		case err := <-ended:
			if err != nil || !goodbye {
				t.Errorf("ended with %v, said goodbye: %v", err, goodbye)
			}
		case <-time.After(5 * time.Second):
			t.Error("it goes on")
		}
		if lines := c.journal.find("worker was drained by the leader and ends", "name=w1", "leader=l", "term=4"); len(lines) != 1 {
			t.Errorf("the log says why %d times", len(lines))
		}
		if members := n.gossip.Members(); len(members) > 1 {
			t.Errorf("gossip: %v", members)
		}
	})
}

// The connection of a machine that is frozen answers nothing, not even keepalives.
func TestTheConnectionOfAFrozenLeaderLastsUntilItIsToldThatItIsStale(t *testing.T) {
	alone(t, func(t *testing.T, c *cluster) {
		c.startWorker("w1")
		old := c.lead("old", "w1", 4)
		c.net.Cut("old", "w1")
		time.Sleep(time.Second)
		next := c.lead("next", "w1", 5)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		pinged := make(chan struct{})
		go func() {
			defer close(pinged)
			for ctx.Err() == nil {
				_ = next.Send(&sessionpb.LeaderMessage{Ping: &sessionpb.Ping{}})
				_, _ = next.Recv()
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(100 * time.Second)
		c.net.Heal("old", "w1")
		if err := old.Send(&sessionpb.LeaderMessage{Actions: []*sessionpb.Action{{Id: 7, Body: &sessionpb.Action_LoadModel{}}}}); err != nil {
			t.Fatal(err)
		}
		m, err := old.Recv()
		if err != nil || len(m.Results) != 1 || m.Results[0].Code != sessionpb.ResultCode_RESULT_CODE_STALE {
			t.Errorf("the old leader was told %v, %v", m, err)
		}
		cancel()
		<-pinged
	})
}

// A worker that waits for its cluster says so, and then is quiet.
func TestAWorkerWithoutControllersMakesNoNoise(t *testing.T) {
	inTunedBubble(t, 1, quick, func(t *testing.T, c *cluster) {
		lines := &lineCounter{}
		logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "w2", Level: hclog.Off})
		logger.RegisterSink(lines)
		c.serve(1)
		for _, name := range controllerNames {
			c.net.Isolate(name)
		}
		n, err := NewWorker(c.workerConfig("w2"), Options{Network: c.net.Host("w2"), Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		c.start("w2", n.Run)
		minute := func(what string, most int) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := lines.take(); len(got) > most {
				t.Errorf("%s: %d lines in a minute, want %d at most:\n%s", what, len(got), most, strings.Join(got, "\n"))
			} else {
				t.Logf("%s: %d lines", what, len(got))
			}
		}
		minute("started without controllers", 3)
		minute("still without controllers", 0)
		minute("still without controllers", 0)
		c.net.HealAll()
		time.Sleep(30 * time.Second)
		if got := strings.Join(lines.take(), "\n"); !strings.Contains(got, "registration committed") {
			t.Fatalf("with controllers: %s", got)
		}
		minute("with controllers", 0)
		for _, name := range controllerNames {
			c.net.Isolate(name)
		}
		minute("lost all controllers", 5)
		minute("still without them", 0)
	})
}

// lineCounter gathers what is logged at level info and above. It implements hclog.SinkAdapter.
type lineCounter struct{ journal }

// take returns the lines so far and forgets them.
func (l *lineCounter) take() (texts []string) {
	for _, line := range l.find("") {
		texts = append(texts, line.text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
	return texts
}
