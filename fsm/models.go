package fsm

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Limits of LoadModel.
const (
	maxInstances = 10_000
	maxNameBytes = 128
)

func (s *State) loadModel(requestID string, asked *logpb.LoadModel) *logpb.Result {
	wanted := proto.CloneOf(asked)
	if s.version() < 4 {
		wanted.Largest, wanted.Replace = nil, false // older releases know neither
	}
	if err := normaliseLoad(wanted); err != nil {
		return refuseInvalid(err)
	}
	instances := max(wanted.GetInstances(), 1)
	ids := make([]uint64, instances)
	places := make([]place, instances)
	missing := false
	for i := range instances {
		m, at, refusal := s.placeFor(instanceName(wanted, i), wanted)
		if refusal != nil {
			return refusal
		}
		if m == nil {
			missing, places[i] = true, at
			continue
		}
		ids[i] = m.GetId()
	}
	if !missing {
		return &logpb.Result{ModelIds: ids}
	}
	if s.Phase() == logpb.Phase_PHASE_SERVING && s.cluster.GetSettings().GetLateLoads() != logpb.Settings_LATE_LOADS_ADMIT {
		remedy := "`orrery cluster set late_loads=admit` has it load models while it serves"
		if s.version() >= 4 {
			remedy += ", and `orrery startup reopen` has it take loads once more"
		}
		return refuse(logpb.Reason_REASON_LATE_LOAD, "model %q comes too late, the cluster is serving: %s", wanted.GetName(), remedy)
	}
	for i := range instances {
		if ids[i] == 0 {
			ids[i] = s.addModel(requestID, wanted, i, places[i])
		}
	}
	switch s.Phase() {
	case logpb.Phase_PHASE_WAITING, logpb.Phase_PHASE_PROFILING:
		s.enterPhase(logpb.Phase_PHASE_LOADING)
	}
	return &logpb.Result{ModelIds: ids}
}

// place is where a model that is to be added goes: its version, and the model that it is to replace, if any.
type place struct {
	version  string
	replaces uint64
}

// placeFor returns the model that is wanted already, or where one is to be added.
func (s *State) placeFor(name string, wanted *logpb.LoadModel) (*logpb.Model, place, *logpb.Result) {
	at := place{version: wanted.GetVersion()}
	if wanted.GetReplace() {
		return s.placeOfReplacement(name, wanted)
	}
	m := s.find(name, at.version)
	switch {
	case m == nil:
		return nil, at, nil
	case m.GetRetiring():
		return nil, at, refuse(logpb.Reason_REASON_CONFLICT, "another version has taken the place of version %s of model %q, which is about to be unloaded: wait until it is, or choose a newer version",
			m.GetVersion(), name)
	}
	if what := difference(m, wanted); what != "" {
		return nil, at, refuse(logpb.Reason_REASON_CONFLICT, "model %q version %s is wanted already with another %s: unload it first, or choose another version",
			name, m.GetVersion(), what)
	}
	return m, at, nil
}

func (s *State) addModel(requestID string, wanted *logpb.LoadModel, instance uint32, at place) uint64 {
	s.lastModelID++
	m := &logpb.Model{
		Id:           s.lastModelID,
		Name:         instanceName(wanted, instance),
		Version:      at.version,
		Replaces:     at.replaces,
		Largest:      wanted.GetLargest(), // shared by the instances, as are the constraints
		Source:       wanted.GetSource(),
		Engine:       wanted.GetEngine(),
		SloNs:        wanted.GetSloNs(),
		MaxRows:      wanted.GetMaxRows(),
		Copies:       wanted.GetCopies(),
		Constraints:  wanted.GetConstraints(),
		Instance:     instance,
		RequestId:    requestID,
		WantedUnixNs: s.now,
	}
	if at.replaces != 0 {
		m.Pinned = s.models.rows[at.replaces].GetPinned()
	}
	s.storeModel(m)
	return m.GetId()
}

func (s *State) unloadModel(c *logpb.UnloadModel) *logpb.Result {
	var ids []uint64
	if c.GetVersion() == "" {
		ids = slices.Sorted(slices.Values(s.versions[c.GetName()]))
	} else if m := s.find(c.GetName(), c.GetVersion()); m != nil && (c.GetModelId() == 0 || c.GetModelId() == m.GetId()) {
		ids = []uint64{m.GetId()}
	}
	if len(ids) == 0 {
		return refuseUnknown(c.GetName(), c.GetVersion())
	}
	for _, id := range ids {
		s.dropModel(s.models.rows[id])
	}
	return &logpb.Result{ModelIds: ids}
}

// refuseUnknown is for a version of a model that is not wanted; empty: for all of them.
func refuseUnknown(name, version string) *logpb.Result {
	which := fmt.Sprintf("model %q", name)
	if version != "" {
		which = fmt.Sprintf("version %q of model %q", version, name)
	}
	return refuse(logpb.Reason_REASON_UNKNOWN_MODEL, "no %s is wanted; `orrery model list` shows the models", which)
}

func (s *State) setModelBlame(c *logpb.SetModelBlame) *logpb.Result {
	old := s.Model(c.GetModelId())
	if old == nil {
		return refuse(logpb.Reason_REASON_UNKNOWN_MODEL, "no model with the id %d is wanted; `orrery model list` shows the models", c.GetModelId())
	}
	if old.GetBlame() != c.GetBlame() {
		m := proto.CloneOf(old)
		m.Blame = c.GetBlame()
		s.storeModel(m)
	}
	return &logpb.Result{ModelIds: []uint64{old.GetId()}}
}

// normaliseLoad checks what a client asks for and writes it in the one way in which it is stored.
func normaliseLoad(c *logpb.LoadModel) error {
	if c.GetInstances() > maxInstances {
		return fmt.Errorf("model %q: %d instances are more than the %d that are possible", c.GetName(), c.GetInstances(), maxInstances)
	}
	longest := instanceName(c, max(c.GetInstances(), 1)-1)
	if !validName(longest) {
		return fmt.Errorf("model name %q: it must start with a letter or digit, go on with those and . _ -, and have at most %d bytes",
			longest, maxNameBytes)
	}
	if c.GetVersion() == "" && !c.GetReplace() {
		c.Version = "1"
	}
	if v, err := strconv.ParseUint(c.GetVersion(), 10, 64); c.GetVersion() != "" && (err != nil || strconv.FormatUint(v, 10) != c.GetVersion()) {
		return fmt.Errorf("model %q: version %q is not a decimal number without leading zeros", c.GetName(), c.GetVersion())
	}
	elements := strings.Split(c.GetSource(), "/")
	switch {
	case c.GetSource() == "":
		return fmt.Errorf("model %q has no source: give its path below the workers' model directory", c.GetName())
	case elements[0] == "":
		return fmt.Errorf("model %q: source %q starts with a slash: give a path below the workers' model directory", c.GetName(), c.GetSource())
	case slices.Contains(elements, ".."):
		return fmt.Errorf("model %q: source %q leads out by \"..\": give a path below the workers' model directory", c.GetName(), c.GetSource())
	case c.GetSloNs() < 0:
		return fmt.Errorf("model %q: the latency objective is %d ns: it can't be negative", c.GetName(), c.GetSloNs())
	}
	c.Source = path.Clean(c.GetSource())
	if err := sortLabels(c.GetConstraints()); err != nil {
		return fmt.Errorf("constraints of model %q: %w", c.GetName(), err)
	}
	if err := sortShapes(c.GetLargest()); err != nil {
		return fmt.Errorf("largest shapes of model %q: %w", c.GetName(), err)
	}
	return nil
}

func validName(name string) bool {
	if len(name) == 0 || len(name) > maxNameBytes {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func instanceName(c *logpb.LoadModel, instance uint32) string {
	if c.GetInstances() <= 1 {
		return c.GetName()
	}
	return c.GetName() + "-" + strconv.FormatUint(uint64(instance), 10)
}

// difference names the first thing in which a wanted model isn't what is asked for, with its value; empty if there is
// none. Who asks for no engine takes the one that the model has.
func difference(m *logpb.Model, c *logpb.LoadModel) string {
	switch {
	case m.GetSource() != c.GetSource():
		return fmt.Sprintf("source, %q", m.GetSource())
	case c.GetEngine() != "" && m.GetEngine() != c.GetEngine():
		return fmt.Sprintf("engine, %q", m.GetEngine())
	case m.GetSloNs() != c.GetSloNs():
		return fmt.Sprintf("latency objective, %d ns", m.GetSloNs())
	case m.GetMaxRows() != c.GetMaxRows():
		return fmt.Sprintf("limit of rows, %d", m.GetMaxRows())
	case m.GetCopies() != c.GetCopies():
		return fmt.Sprintf("number of copies, %d", m.GetCopies())
	case !slices.EqualFunc(m.GetConstraints(), c.GetConstraints(), func(a, b *logpb.Label) bool { return proto.Equal(a, b) }):
		return "set of constraints"
	case ShapesKey(m.GetLargest()) != ShapesKey(c.GetLargest()):
		return fmt.Sprintf("set of largest shapes, %q", ShapesKey(m.GetLargest()))
	}
	return ""
}

// compareVersions compares decimal numbers without leading zeros.
func compareVersions(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
