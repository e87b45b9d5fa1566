package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// expectObstacle asks for a model, and expects to be refused at once, for a reason
// that the model's status tells in the same words.
func (c *cluster) expectObstacle(leader, model string, reason errs.Reason, words ...string) {
	c.t.Helper()
	for _, through := range []string{leader, follower(leader, controllerNames...)} {
		began := time.Now()
		e := reasonOf(ask(context.Background(), c.inference(through), within(image(model, 1), 5*time.Second)))
		if e.Reason != reason || e.Execution != errs.NotExecuted {
			c.t.Errorf("through %s: %+v, want %s", through, e, reason)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			c.t.Errorf("%s: refused only after %v", reason, took)
		}
		m := c.model(through, model)
		if m.Code != string(reason) || m.Advice == "" || !strings.Contains(e.Message, m.Reason) || !strings.Contains(e.Message, m.Advice) {
			c.t.Errorf("the status says %s: %q, %q\nthe refusal says %q", m.Code, m.Reason, m.Advice, e.Message)
		}
		for _, w := range words {
			if !strings.Contains(e.Message, w) {
				c.t.Errorf("%s: %q does not say %q", reason, e.Message, w)
			}
		}
	}
	c.t.Logf("%s: %s", reason, reasonOf(ask(context.Background(), c.inference(leader), within(image(model, 1), 5*time.Second))).Message)
}

// want has the cluster want a model, without waiting for it.
func (c *cluster) want(at string, model *logpb.LoadModel) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err := c.control(at).LoadModel(ctx, &controlpb.LoadModelRequest{Model: model})
	if err != nil && reasonOf(err).Reason != errs.DeadlinePassed {
		c.t.Fatal(err)
	}
}

// Every documented reason why nobody serves a model.
func TestWhyNobodyServesAModel(t *testing.T) {
	inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
		dir := c.faultyTable("good,10,2,3,4,6,10,,", "huge,2000,2,3,4,6,10,,", "wide,300,2,3,4,6,10,,",
			"late,10,2,3,4,6,10,,20000", "long,10,2,2000,4000,8000,16000,,")
		c.tuneWorker = func(w *configs.Worker) {
			w.ModelDir, w.HostMemory = dir, 500*configs.MiB
			w.Devices[0].WeightsCache = 64 * configs.MiB
		}
		leader := c.leader(controllerNames...)
		c.want(leader, &logpb.LoadModel{Name: "good", Source: "table.csv#good"})
		if m := c.model(leader, "good"); m.Code != string(errs.NoWorker) || !strings.Contains(m.Advice, "orrery workerd") {
			t.Errorf("without any worker: %v", m)
		}
		c.startWorker("w1")
		c.startWorker("w2")
		c.untilPhase(leader, logpb.Phase_PHASE_SERVING, time.Minute)
		c.awaitNewestVersion()
		c.admitLateLoads(leader)

		e := reasonOf(ask(context.Background(), c.inference("c1"), within(image("unheard-of", 1), time.Second)))
		if e.Reason != errs.UnknownModel || !strings.Contains(e.Message, "orrery model load") {
			t.Errorf("no such model: %+v", e)
		}
		t.Logf("%s: %s", e.Reason, e.Message)
		for _, test := range []struct {
			model  *logpb.LoadModel
			reason errs.Reason
			words  []string
		}{
			{&logpb.LoadModel{Name: "engine", Source: "a.plan", Engine: "tensorrt"}, errs.NoEngine, []string{`"tensorrt"`, "--engine"}},
			{&logpb.LoadModel{Name: "form", Source: "a.plan"}, errs.NoEngine, []string{"a.plan", "w1"}},
			{&logpb.LoadModel{Name: "label", Source: "table.csv#good", Constraints: []*logpb.Label{{Key: "zone", Value: "b"}}}, errs.NoMatch, []string{"zone=b"}},
			{&logpb.LoadModel{Name: "huge", Source: "table.csv#huge"}, errs.NoMemory, []string{"host memory", "host_memory"}},
			{&logpb.LoadModel{Name: "missing", Source: "table.csv#nosuch"}, errs.LoadFailed, []string{"nosuch", "w1"}},
			{&logpb.LoadModel{Name: "late", Source: "table.csv#late"}, errs.NotLoaded, []string{"2 of the workers"}},
			{&logpb.LoadModel{Name: "long", Source: "table.csv#long"}, errs.NotProfiled, []string{"not been measured"}},
		} {
			c.want(leader, test.model)
			c.expectObstacle(leader, test.model.Name, test.reason, test.words...)
		}
		c.mustLoad(leader, "wide", "table.csv#wide")
		c.expectObstacle(leader, "wide", errs.NoRoom, "286 MiB", "weights_cache")
	})
}

func TestWhyTheWorkersOfAModelDoNotServe(t *testing.T) {
	inTunedBubble(t, 3, quick, func(t *testing.T, c *cluster) {
		leader := c.serve(3)
		c.awaitNewestVersion()
		c.setStatus(leader, "w3", draining, 0)
		c.untilGone(leader, "w3", 10*time.Second)
		c.setStatus(leader, "w1", cordoned, 0)
		c.setStatus(leader, "w2", evicted, 0)
		time.Sleep(2 * time.Second)
		c.expectObstacle(leader, "resnet18", errs.NoWorker, "w1 is cordoned", "orrery worker resume")
		c.kill("w1")
		time.Sleep(time.Second)
		c.expectObstacle(leader, "resnet18", errs.NoWorker, "w1 is cordoned")
		c.setStatus(leader, "w2", ready, 0)
		c.eventually(10*time.Second, "an answer by w2", func() error {
			return ask(context.Background(), c.inference("c1"), within(image("resnet18", 1), time.Second))
		})
		c.kill("w2")
		time.Sleep(600 * time.Millisecond)
		c.expectObstacle(leader, "resnet18", errs.NoWorker, "w2 is away")
		time.Sleep(2 * time.Second)
		c.expectObstacle(leader, "resnet18", errs.NoWorker, "w2 is lost")
	})
}
