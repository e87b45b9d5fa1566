package controller

import "time"

// streakLength failures in a row, of models that other workers ran meanwhile, are
// the worker's own fault.
const streakLength = 8

// streaks are the failures in a row of workers' executions. A model that fails
// everywhere is nobody's fault but its own: what counts is that somebody else ran
// it while this worker could not.
type streaks map[string]*streak

type streak struct {
	failures int
	models   map[uint64]bool
	// elsewhere says that another worker ran one of the models since it began.
	elsewhere bool
}

// failed notes a failed execution, and says whether the worker is at fault.
func (all streaks) failed(worker string, model uint64) bool {
	s := all[worker]
	if s == nil {
		s = &streak{models: map[uint64]bool{}}
		all[worker] = s
	}
	s.failures++
	s.models[model] = true
	if s.failures < streakLength || !s.elsewhere {
		return false
	}
	delete(all, worker)
	return true
}

// succeeded notes an execution that went well.
func (all streaks) succeeded(worker string, model uint64) {
	delete(all, worker)
	for _, s := range all {
		s.elsewhere = s.elsewhere || s.models[model]
	}
}

// failing confines a worker that can't do what others can.
func (k *coordinator) failing(name string) {
	w := k.connections[name]
	if w == nil || w.health.quarantined(time.Now()) || !k.othersServe(w) {
		return
	}
	w.health.condemn(time.Now(), "what it ran failed many times in a row, and other workers could run it")
	k.quarantined(w)
}
