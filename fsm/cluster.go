package fsm

import (
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// policyVersion is the schema from which on leaders do as the setting policy says. Earlier releases have the field, and
// keep what is in it, whatever that is; a leader of theirs takes no notice of it.
const policyVersion = 5

// Policy is the scheduling policy that the settings name; empty: none, so each leader uses the one of its configuration.
// It may be one that this release doesn't have.
func (s *State) Policy() string {
	if s.version() < policyVersion {
		return ""
	}
	return s.cluster.GetSettings().GetPolicy()
}

func (s *State) initCluster(c *logpb.InitCluster) *logpb.Result {
	if id := s.cluster.GetId(); id != "" {
		return refuse(logpb.Reason_REASON_ALREADY_INITIALISED, "the cluster is bootstrapped already, its id is %q", id)
	}
	if c.GetClusterId() == "" {
		return refuse(logpb.Reason_REASON_INVALID, "the cluster id is empty: draw a random one")
	}
	settings := c.GetSettings()
	if settings == nil {
		settings = &logpb.Settings{}
	}
	if refusal := s.checkSettings(settings); refusal != nil {
		return refusal
	}
	s.changeCluster(func(cluster *logpb.Cluster) {
		cluster.Id = c.GetClusterId()
		cluster.Epoch = 1
		cluster.Version = 1 // whatever this release applies: others in the cluster may be older
		cluster.Phase = logpb.Phase_PHASE_QUERYING
		cluster.Settings = proto.CloneOf(settings)
	})
	return &logpb.Result{}
}

func (s *State) setSettings(settings *logpb.Settings) *logpb.Result {
	if settings == nil {
		return refuse(logpb.Reason_REASON_INVALID, "there are no settings in the command: give all of them, not only those that change")
	}
	if refusal := s.checkSettings(settings); refusal != nil {
		return refusal
	}
	s.changeCluster(func(c *logpb.Cluster) { c.Settings = proto.CloneOf(settings) })
	return &logpb.Result{}
}

func (s *State) checkSettings(settings *logpb.Settings) *logpb.Result {
	switch settings.GetLateLoads() {
	case logpb.Settings_LATE_LOADS_REJECT, logpb.Settings_LATE_LOADS_ADMIT:
	default:
		return refuse(logpb.Reason_REASON_INVALID, "late_loads is %d, which is neither reject nor admit", settings.GetLateLoads())
	}
	// Which policies there are is up to the release that leads. Below that version there are replicas that take any text.
	if policy := settings.GetPolicy(); s.version() >= policyVersion && policy != "" && !validName(policy) {
		return refuse(logpb.Reason_REASON_INVALID,
			"policy is %.80q: a name has at most %d letters, digits and '.', '_', '-', and begins with a letter or digit", policy, maxNameBytes)
	}
	return nil
}

func (s *State) raiseEpoch(to uint64) *logpb.Result {
	if to <= s.cluster.GetEpoch() {
		return refuse(logpb.Reason_REASON_INVALID, "the epoch is %d and only rises: it can't become %d", s.cluster.GetEpoch(), to)
	}
	s.changeCluster(func(c *logpb.Cluster) { c.Epoch = to })
	return &logpb.Result{}
}

func (s *State) setPhase(c *logpb.SetPhase) *logpb.Result {
	from, to := c.GetFrom(), c.GetTo()
	next := to == from+1 && from >= logpb.Phase_PHASE_QUERYING && to <= logpb.Phase_PHASE_SERVING
	stay := from == logpb.Phase_PHASE_LOADING && to == from
	if !next && !stay {
		return refuse(logpb.Reason_REASON_INVALID, "the phase can't go from %s to %s: only to the next one", phaseName(from), phaseName(to))
	}
	if from != s.Phase() {
		return refuse(logpb.Reason_REASON_WRONG_PHASE, "the phase is %s, not %s: look again", phaseName(s.Phase()), phaseName(from))
	}
	if c.GetLastModelId() != s.lastModelID {
		return refuse(logpb.Reason_REASON_WRONG_PHASE, "the last model wanted is %d, not %d: look again", s.lastModelID, c.GetLastModelId())
	}
	if from == logpb.Phase_PHASE_QUERYING && len(s.models.keys) > 0 {
		to = logpb.Phase_PHASE_LOADING // models were wanted before anyone waited for them
	}
	s.enterPhase(to)
	return &logpb.Result{}
}

func (s *State) enterPhase(phase logpb.Phase) {
	s.changeCluster(func(c *logpb.Cluster) {
		c.Phase = phase
		if phase == logpb.Phase_PHASE_SERVING {
			c.Reopened, c.ReopenedAfterModel = false, 0
		}
	})
}

func (s *State) reopenStartup(shut bool) *logpb.Result {
	reopened := s.cluster.GetReopened()
	switch {
	case !shut && reopened && s.Phase() == logpb.Phase_PHASE_PROFILING:
		s.enterPhase(logpb.Phase_PHASE_LOADING) // the door would shut soon
	case !shut && reopened, shut && s.Phase() == logpb.Phase_PHASE_SERVING:
		// It is as it should be.
	case !shut && s.Phase() != logpb.Phase_PHASE_SERVING, shut && !reopened:
		return refuse(logpb.Reason_REASON_WRONG_PHASE, "the cluster does not serve yet, it is in phase %s: loads are accepted anyway", phaseName(s.Phase()))
	case !shut:
		s.changeCluster(func(c *logpb.Cluster) {
			c.Phase, c.Reopened, c.ReopenedAfterModel = logpb.Phase_PHASE_WAITING, true, s.lastModelID
		})
	case s.Phase() != logpb.Phase_PHASE_WAITING:
		return refuse(logpb.Reason_REASON_WRONG_PHASE, "loads have come since the startup was reopened, it is in phase %s: it ends by itself when they are done",
			phaseName(s.Phase()))
	default:
		s.enterPhase(logpb.Phase_PHASE_SERVING)
	}
	return &logpb.Result{}
}

func (s *State) changeCluster(change func(*logpb.Cluster)) {
	c := proto.CloneOf(s.cluster)
	change(c)
	if !proto.Equal(c, s.cluster) {
		s.cluster = c
		s.changed |= Cluster
	}
}

// phaseName is the word that people read. It does not follow the names in the protocol, so that results stay the same
// if those change.
func phaseName(phase logpb.Phase) string {
	switch phase {
	case logpb.Phase_PHASE_QUERYING:
		return "querying"
	case logpb.Phase_PHASE_WAITING:
		return "waiting"
	case logpb.Phase_PHASE_LOADING:
		return "loading"
	case logpb.Phase_PHASE_PROFILING:
		return "profiling"
	case logpb.Phase_PHASE_SERVING:
		return "serving"
	}
	return "unknown"
}
