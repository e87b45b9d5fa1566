package controller

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// A load that is committed right behind the change of phase takes the phase
// back before the leader has looked at it.
func TestALoadRightBehindTheChangeOfPhaseDoesNotStopTheStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, log := soloCoordinator(t, nil, logpb.Phase_PHASE_WAITING)
		slipped := false
		log.after = func(c *logpb.Command) {
			if c.GetSetPhase() == nil || slipped {
				return
			}
			slipped = true
			log.propose(t, &logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: "late", Source: "late.onnx"}}})
			log.propose(t, &logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{
				Holding: &logpb.Holding{ModelId: 2, Worker: "w", Incarnation: "1", Status: logpb.HoldingStatus_HOLDING_STATUS_FAILED, Error: "no such file"},
			}}}}})
		}
		// The loop of run, step by step: nobody looks between the two commands.
		k.connections["w"] = &connection{name: "w", answered: true}
		log.replica.Read(func(s *fsm.State) { k.startup = newStartupDriver(k, s) })
		phase := logpb.Phase_PHASE_LOADING
		for range 300 {
			log.replica.Read(func(s *fsm.State) { k.startup.step(s); phase = s.Phase() })
			synctest.Wait()
			k.mailbox.run()
			time.Sleep(coordinatorTick)
		}
		if !slipped || phase != logpb.Phase_PHASE_SERVING {
			t.Errorf("slipped in: %v; after 30s in phase %s, waiting for %s", slipped, PhaseName(phase), k.startup.machine.WaitingFor())
		}
	})
}
