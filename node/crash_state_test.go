package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// endState is what a startup has come to, as far as it is to be the same
// whoever led: without ids, incarnations, instants and how long loads took; and
// of models with a limited number of copies without who has them.
type endState struct {
	Phase   string
	Models  []modelState
	Workers []workerState
}

type modelState struct {
	Name, Version, Source, Engine, Digest, Code string
	SLONs                                       int64
	MaxRows, Copies                             uint32
	Holdings                                    []holdingState
	Profiles                                    []profileState
}

type holdingState struct{ Worker, Status, Error string }

type profileState struct {
	Engine, EngineVersion, DeviceKind string
	WeightsLoadP50Ns                  int64
	OutputBytesPerRow                 uint64
	Execution                         []rowsState
}

type rowsState struct {
	Rows  uint32
	P50Ns int64
}

type workerState struct {
	Name, Status, State, Kinds string
	Models                     []string
}

// endState reads the state from a controller, by what it tells its clients.
func (c *cluster) endState(at string) (s endState) {
	c.t.Helper()
	control, ctx := c.control(at), context.Background()
	startup, err := control.Startup(ctx, &controlpb.StartupRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	models, err := control.ListModels(ctx, &controlpb.ListModelsRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	workers, err := control.ListWorkers(ctx, &controlpb.ListWorkersRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	s.Phase = startup.Phase.String()
	limited := map[string]bool{}
	for _, m := range models.Models {
		s.Models = append(s.Models, stateOfModel(m))
		limited[m.Model.Name] = m.Model.Copies > 0
	}
	slices.SortFunc(s.Models, func(a, b modelState) int { return cmp.Compare(a.Name, b.Name) })
	for _, w := range workers.Workers {
		state := workerState{Name: w.Worker.Name, Status: w.Worker.Status.String(), State: w.State}
		for _, d := range w.Worker.Devices {
			state.Kinds += fmt.Sprint(d.Kind, d.Engines, d.Pages)
		}
		for _, m := range w.Models {
			if !limited[m] {
				state.Models = append(state.Models, m)
			}
		}
		slices.Sort(state.Models)
		s.Workers = append(s.Workers, state)
	}
	return s
}

func stateOfModel(m *controlpb.ModelStatus) modelState {
	s := modelState{
		Name: m.Model.Name, Version: m.Model.Version, Source: m.Model.Source, Engine: m.Model.Engine, Digest: m.Model.Info.GetDigest(),
		Code: m.Code, SLONs: m.Model.SloNs, MaxRows: m.Model.MaxRows, Copies: m.Model.Copies,
	}
	for _, h := range m.Copies {
		of := holdingState{Worker: h.Worker, Status: h.Status.String(), Error: h.Error}
		if s.Copies > 0 {
			of.Worker = "any"
		}
		s.Holdings = append(s.Holdings, of)
	}
	for _, p := range m.Profiles {
		of := profileState{
			Engine: p.Key.Engine, EngineVersion: p.Key.EngineVersion, DeviceKind: p.Key.DeviceKind,
			WeightsLoadP50Ns: p.WeightsLoadP50Ns, OutputBytesPerRow: p.OutputBytesPerRow,
		}
		for _, e := range p.Execution {
			of.Execution = append(of.Execution, rowsState{e.Rows, e.P50Ns})
		}
		s.Profiles = append(s.Profiles, of)
	}
	return s
}

// copyKey is a model's copy at a worker, measureKey a model on a kind of device.
type (
	copyKey    struct{ worker, model string }
	measureKey struct{ digest, kind string }
)

// agreed is what has been committed for certain: what at least one replica,
// also one that is about to die, has applied.
type agreed struct {
	// phases are what each replica has applied so far.
	phases map[string]logpb.Phase
	// copies are those that were loaded, or failed to.
	copies map[copyKey]logpb.HoldingStatus
	// measured are the profiles.
	measured map[measureKey]bool
}

// agreed reads the states of the replicas, without a word on the network.
func (c *cluster) agreed() agreed {
	a := agreed{phases: map[string]logpb.Phase{}, copies: map[copyKey]logpb.HoldingStatus{}, measured: map[measureKey]bool{}}
	for _, name := range controllerNames {
		c.controllers[name].replica.Read(func(s *fsm.State) {
			a.phases[name] = s.Phase()
			for _, m := range s.Models() {
				for _, h := range s.Holdings(m.Id) {
					if h.Status != logpb.HoldingStatus_HOLDING_STATUS_PENDING {
						a.copies[copyKey{h.Worker, m.Name}] = h.Status
					}
				}
				for _, p := range s.ProfilesOf(m) {
					a.measured[measureKey{p.Key.Digest, p.Key.DeviceKind}] = true
				}
			}
		})
	}
	return a
}
