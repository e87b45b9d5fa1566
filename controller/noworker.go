package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// liveWorkers are what the leader knows of workers that is not replicated, by
// name. nil: nobody was asked.
type liveWorkers map[string]*controlpb.WorkerLive

// obstacle is why nobody can serve a model, and what would help. The same one is
// told to clients whose requests are refused for it and to operators who look at
// the model. The zero value means that there is none.
type obstacle struct {
	code           errs.Reason
	reason, advice string
}

func (o obstacle) exists() bool { return o.code != "" }

// error refuses a request for the model.
func (o obstacle) error(m *logpb.Model) *errs.Error {
	e := errs.New(o.code, "model %q can't be served: %s; %s", m.Name, o.reason, o.advice)
	if o.code == errs.NoWorker || o.code == errs.NotLoaded || o.code == errs.NotProfiled {
		return e.After(time.Second)
	}
	return e
}

// refuse says why nobody can serve a model. It is looked up anew, since the state
// may have changed after the refusal was decided: what was found then stands when
// nothing is in the way any more.
func refuse(replica *fsm.Replica, id uint64, name string, live liveWorkers, found obstacle) *errs.Error {
	e := errs.New(errs.UnknownModel, "model %q has been unloaded", name)
	replica.Read(func(s *fsm.State) {
		m := s.Model(id)
		if m == nil {
			return
		}
		if o := obstacleTo(s, m, live); o.exists() {
			found = o
		}
		e = found.error(m)
	})
	return e
}

// obstacleTo finds what keeps a model of the state from being served.
func obstacleTo(s *fsm.State, m *logpb.Model, live liveWorkers) obstacle {
	if m.Blame != "" {
		return obstacle{errs.ModelBlamed, m.Blame,
			fmt.Sprintf("mend it and load it under another version, or, if it was not its fault, `orrery model resume %s`", m.Name)}
	}
	if m.Retiring {
		return obstacle{errs.UnknownModel, "another version has taken its place, and it only ends what it has", "ask without a version"}
	}
	if len(s.Workers()) == 0 {
		return obstacle{errs.NoWorker, "no worker is registered", "start one: `orrery workerd --config worker.yaml`"}
	}
	var loaded []*logpb.Worker
	for _, h := range s.Holdings(m.Id) {
		if h.Status == logpb.HoldingStatus_HOLDING_STATUS_LOADED {
			loaded = append(loaded, s.Worker(h.Worker))
		}
	}
	if len(loaded) == 0 {
		return notLoaded(s, m, live)
	}
	var takesWork []*logpb.Worker
	var away []string
	for _, w := range loaded {
		if why := idle(w, live); why != "" && !handsOver(w, live) {
			away = append(away, w.Name+" "+why)
			continue
		}
		takesWork = append(takesWork, w)
	}
	switch {
	case len(takesWork) == 0:
		return obstacle{errs.NoWorker, "of the workers that hold it, " + enumerate(away), bringBack}
	case !slices.ContainsFunc(takesWork, func(w *logpb.Worker) bool { return weightsFit(w, m) }):
		return obstacle{errs.NoRoom, fmt.Sprintf("its weights, %s, fit into the weights cache of no device that may run it", size(m.Info.WeightsBytes)),
			"give a worker that holds it a larger weights_cache"}
	case !slices.ContainsFunc(takesWork, func(w *logpb.Worker) bool { return profiledOn(s, w, m) }):
		return obstacle{errs.NotProfiled, "its times have not been measured yet", "wait; `orrery startup status` shows how far it is"}
	}
	return obstacle{}
}

// bringBack is the advice where workers are out of service.
const bringBack = "see `orrery worker list`, and bring one of them back (`orrery worker resume` ends a cordon, a drain, an eviction or a quarantine)"

// profiledOn says whether the model has been measured on a kind of device of the
// worker that may run it.
func profiledOn(s *fsm.State, w *logpb.Worker, m *logpb.Model) bool {
	return slices.ContainsFunc(w.Devices, func(d *logpb.Device) bool {
		return runsOn(d, m) && profileFor(s, m, d.Kind) != nil
	})
}

// notLoaded is for a model that no worker holds.
func notLoaded(s *fsm.State, m *logpb.Model, live liveWorkers) obstacle {
	able := s.Able(m)
	if len(able) == 0 {
		return unable(s, m)
	}
	waits, without := 0, map[logpb.HoldingFault]int{}
	failed, first := 0, ""
	for _, w := range able {
		h := s.Holding(m.Id, w.Name)
		if h.GetStatus() != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			waits++
			continue
		}
		failed++
		without[h.Fault]++
		if first == "" {
			first = fmt.Sprintf("worker %s: %s", w.Name, h.Error)
		}
	}
	switch {
	case waits > 0:
		if shall := len(s.Targets(m)) + s.Missing(m); m.Copies > 0 && shall < waits {
			waits = shall
		}
		advice := "wait; `orrery model status " + m.Name + "` shows how it goes on"
		for _, w := range able {
			if why := idle(w, live); why != "" {
				advice = fmt.Sprintf("worker %s %s: see `orrery worker list`", w.Name, why)
			}
		}
		return obstacle{errs.NotLoaded, fmt.Sprintf("%d of the workers that shall hold it have not loaded it yet", waits), advice}
	case without[logpb.HoldingFault_HOLDING_FAULT_NO_MEMORY] == failed:
		return obstacle{errs.NoMemory, "no worker has the host memory for it: " + first, "unload other models, allow more by host_memory, or add a worker"}
	case without[logpb.HoldingFault_HOLDING_FAULT_NO_ENGINE] == failed:
		return obstacle{errs.NoEngine, "no engine of any worker takes it: " + first, "name an engine by --engine, or add a worker whose devices have one for it"}
	default:
		return obstacle{errs.LoadFailed, "no worker could load it: " + first, "mend the cause, then unload and load it again"}
	}
}

// unable is for a model that no registered worker could hold.
func unable(s *fsm.State, m *logpb.Model) obstacle {
	var others, labelled []string
	for _, w := range s.Workers() {
		switch {
		case !fsm.HasEngine(w, m.Engine):
		case !fsm.HasLabels(w, m.Constraints):
			labelled = append(labelled, w.Name)
		default:
			others = append(others, w.Name+" "+idle(w, nil))
		}
	}
	switch {
	case len(others) > 0:
		return obstacle{errs.NoWorker, "of the workers that could hold it, " + enumerate(others),
			bringBack}
	case len(labelled) > 0:
		return obstacle{errs.NoMatch, fmt.Sprintf("no worker has the labels that it asks for (%s)", labels(m.Constraints)),
			"give a worker these labels in its configuration, or load the model without them"}
	case m.Engine != "":
		return obstacle{errs.NoEngine, fmt.Sprintf("no device of any worker has the engine %q", m.Engine),
			"add a worker that has it, or load the model with another --engine"}
	default:
		return obstacle{errs.NoEngine, "no device of any worker has an engine", "see `orrery worker list`"}
	}
}

// idle says why a worker takes no work; empty: it does.
func idle(w *logpb.Worker, live liveWorkers) string {
	switch w.GetStatus() {
	case logpb.WorkerStatus_WORKER_STATUS_CORDONED:
		return "is cordoned"
	case logpb.WorkerStatus_WORKER_STATUS_DRAINING:
		return "is draining"
	case logpb.WorkerStatus_WORKER_STATUS_EVICTED:
		return "was evicted"
	case logpb.WorkerStatus_WORKER_STATUS_LOST:
		return "is lost"
	}
	l := live[w.GetName()]
	switch {
	case live == nil:
		return ""
	case l == nil || !l.Connected:
		return "is away"
	case l.Leaving:
		return "is leaving"
	case l.QuarantinedNs > 0:
		return fmt.Sprintf("is in quarantine for another %v (%s)", time.Duration(l.QuarantinedNs).Round(time.Second), l.QuarantineReason)
	}
	return ""
}

// handsOver says whether a worker drains and still serves what nobody else does.
func handsOver(w *logpb.Worker, live liveWorkers) bool {
	l := live[w.GetName()]
	return w.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_DRAINING && (live == nil || l.GetConnected() && !l.GetLeaving() && l.GetQuarantinedNs() == 0)
}

// enumerate joins a few of many phrases.
func enumerate(all []string) string {
	const most = 4
	if len(all) > most {
		return fmt.Sprintf("%s, and %d more do as little", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

func labels(all []*logpb.Label) string {
	words := make([]string, len(all))
	for i, l := range all {
		words[i] = l.Key + "=" + l.Value
	}
	return strings.Join(words, ", ")
}

// size is a number of bytes for a person.
func size(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", bytes)
}
