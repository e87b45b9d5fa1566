package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Loading or measuring a model may kill the worker's process. What was being
// loaded or measured when a worker died is suspected, and from then on done alone:
// one suspect at a time in the whole cluster, on a worker that loads and measures
// nothing else. If that worker dies too, the model is blamed and stopped. (What
// inference does is the scheduler's to judge.)

// trial is what a model may be suspected of.
type trial struct {
	model uint64
	// profiling, or else loading.
	profiling bool
}

func (t trial) doing() string {
	if t.profiling {
		return "measured"
	}
	return "loaded"
}

// deathsToBlame is how many workers a model may take down.
const deathsToBlame = 2

// suspects are the workers that died, by what they were doing.
type suspects map[trial][]string

// died notes what a worker was doing when it died. It returns what has to be
// blamed.
func (all suspects) died(w *connection) (blamed []trial) {
	var doing []trial
	for id, h := range w.held {
		if h.loading {
			doing = append(doing, trial{model: id})
		}
	}
	for _, id := range w.profiling {
		doing = append(doing, trial{id, true})
	}
	for _, t := range doing {
		// A second death is proof only when nothing else was going on.
		if len(all[t]) == 0 || w.alone == t.model {
			all[t] = append(all[t], w.name)
		}
		if len(all[t]) >= deathsToBlame {
			blamed = append(blamed, t)
		}
	}
	return blamed
}

// killed says whether a worker died with something that is suspect. A second death
// proves more when it is another worker's, so that one is asked if there is any.
func (all suspects) killed(t trial, worker string) bool { return slices.Contains(all[t], worker) }

// mayTry says whether a worker may begin something now, and notes that it does it
// alone if it must.
func (k *coordinator) mayTry(w *connection, t trial) bool {
	deaths := len(k.suspects[t])
	switch {
	case w.busyAlone() || deaths >= deathsToBlame:
		return false
	case deaths == 0:
		return true
	case w.loading > 0 || len(w.profiling) > 0:
		return false
	}
	for _, o := range k.connections {
		if o.session != nil && o.busyAlone() {
			return false
		}
	}
	w.alone, w.aloneSince = t.model, time.Now()
	return true
}

// alonePatience is how long a suspect that does not come to an end keeps others
// waiting.
const alonePatience = 30 * time.Second

func (w *connection) busyAlone() bool {
	return w.alone != 0 && time.Since(w.aloneSince) < alonePatience
}

// tried ends what mayTry has allowed. survived says that it came to an end.
func (k *coordinator) tried(w *connection, t trial, survived bool) {
	if w.alone == t.model {
		w.alone = 0
	}
	if survived {
		delete(k.suspects, t)
	}
}

// blameLoads blames what a worker died with, as far as that is proved.
func (k *coordinator) blameLoads(w *connection) {
	for _, t := range k.suspects.died(w) {
		k.blame(t.model, k.suspects[t], t.doing())
	}
}

// blame has the cluster agree that a model is not served any more.
func (k *coordinator) blame(id uint64, workers []string, doing string) {
	names := slices.Compact(slices.Sorted(slices.Values(workers)))
	text := fmt.Sprintf("worker %s died twice while it %s this model", names[0], doing)
	if len(names) > 1 {
		text = fmt.Sprintf("workers %s died while they %s this model", strings.Join(names, " and "), doing)
	}
	name := ""
	k.term.c.options.Replica.Read(func(s *fsm.State) { name = s.Model(id).GetName() })
	k.log.Error("a model is blamed for the death of workers and stopped", "model", name, "id", id, "workers", names)
	k.term.c.workerMetrics.blamed.Inc()
	for _, name := range workers {
		k.forgive(name)
	}
	k.verdicts = append(k.verdicts, &logpb.SetModelBlame{ModelId: id, Blame: text})
}

// commitVerdicts commits whom to blame, once the cluster can: until then this
// leader remembers it.
func (k *coordinator) commitVerdicts(s *fsm.State) {
	if len(k.verdicts) == 0 || k.committingVerdict {
		return
	}
	verdict := k.verdicts[0]
	cmd := command(&logpb.Command{Body: &logpb.Command_SetModelBlame{SetModelBlame: verdict}})
	if s.Cluster().GetVersion() < cmd.Version {
		return
	}
	k.committingVerdict = true
	k.commit(cmd, func(r *logpb.Result) {
		k.committingVerdict = false
		if r != nil {
			k.verdicts = k.verdicts[1:]
		}
	})
}

// pardon forgets what a model was suspected of, once it is to be served again.
func (k *coordinator) pardon(id uint64) {
	delete(k.suspects, trial{model: id})
	delete(k.suspects, trial{id, true})
}
