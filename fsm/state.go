// Package fsm is what the cluster has agreed on: the workers, the models that are wanted, who holds them, the profiles,
// the settings and the startup phase. State.Apply turns one command of the log into a result and nothing else: it
// looks at no clock, draws no lots, starts nothing and logs nothing, so all replicas come to the same state. Replica,
// in raft.go, is the only part that knows hashicorp/raft.
//
// A record is never modified once it is stored: a change stores another one. So a snapshot copies pointers only, and
// a reader may keep a record for as long as it likes.
//
// What Apply answers is part of the contract between releases: testdata/corpus holds command streams that every later
// release must replay to the same digests, and testdata/snapshots the snapshots that it must restore to them.
package fsm

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// State is the replicated state. It isn't safe for concurrent use; Replica guards one with a lock.
type State struct {
	cluster     *logpb.Cluster
	now         int64  // unix ns
	index       uint64 // of the last command
	lastModelID uint64

	workers  table[string, *logpb.Worker]
	models   table[uint64, *logpb.Model]
	holdings map[uint64][]*logpb.Holding // model id → by worker; of known models and registered incarnations only
	profiles table[profileKey, *logpb.Profile]
	requests requests

	versions map[string][]uint64 // model name → ids, the largest version first; follows from models

	release uint32 // the newest schema that is applied: Version, or less to act as an older release
	changed Part   // what has changed since takeChanged
}

// New returns the state before the first command: a cluster without an id.
func New() *State { return newState(Version) }

func newState(release uint32) *State {
	return &State{
		release:  release,
		cluster:  &logpb.Cluster{},
		workers:  newTable[string, *logpb.Worker](strings.Compare),
		models:   newTable[uint64, *logpb.Model](cmp.Compare[uint64]),
		holdings: map[uint64][]*logpb.Holding{},
		profiles: newTable[profileKey, *logpb.Profile](profileKey.compare),
		requests: newRequests(),
		versions: map[string][]uint64{},
	}
}

// Cluster is never nil; its id is empty until the cluster is bootstrapped.
func (s *State) Cluster() *logpb.Cluster { return s.cluster }

// Phase is how far the startup has come.
func (s *State) Phase() logpb.Phase { return s.cluster.GetPhase() }

// Serving says whether requests are answered: that goes on when the startup is reopened.
func (s *State) Serving() bool {
	return s.Phase() == logpb.Phase_PHASE_SERVING || s.cluster.GetReopened()
}

// Now is the latest proposer's time that was applied, in unix nanoseconds. It never goes back.
func (s *State) Now() int64 { return s.now }

// Index is the log index of the last command applied.
func (s *State) Index() uint64 { return s.index }

// LastModelID is the newest model id ever given, 0 for none.
func (s *State) LastModelID() uint64 { return s.lastModelID }

// Workers are all registered workers, by name.
func (s *State) Workers() []*logpb.Worker { return s.workers.values() }

// Worker returns nil if there is none of that name.
func (s *State) Worker(name string) *logpb.Worker { return s.workers.rows[name] }

// Models are all wanted models, by id.
func (s *State) Models() []*logpb.Model { return s.models.values() }

// Model returns nil if there is none with that id.
func (s *State) Model(id uint64) *logpb.Model { return s.models.rows[id] }

// Resolve finds the model that a request for a name and version goes to, nil if there is none. Without a version it is
// the largest that some worker has loaded and that is profiled, else the largest that is loaded, else the largest of all.
// One that is still to replace another comes last, and one that was replaced is not found.
func (s *State) Resolve(name, version string) (found *logpb.Model) {
	if version != "" {
		if m := s.find(name, version); !m.GetRetiring() {
			return m
		}
		return nil
	}
	best := 0
	for _, id := range s.versions[name] {
		if fitness := s.fitness(s.models.rows[id]); fitness > best {
			found, best = s.models.rows[id], fitness
		}
	}
	return found
}

// fitness is how far a model is from taking requests; 0: it takes none any more. A replacement replaces the fittest, so
// another order needs a new cluster version.
func (s *State) fitness(m *logpb.Model) int {
	switch {
	case m.GetRetiring():
		return 0
	case m.GetReplaces() != 0:
		return 1
	case len(s.versions[m.GetName()]) == 1 || !s.loaded(m.GetId()):
		return 2
	case len(s.ProfilesOf(m)) == 0:
		return 3
	}
	return 4
}

// find finds a model whether it takes requests or not; nil if there is none.
func (s *State) find(name, version string) *logpb.Model {
	for _, id := range s.versions[name] {
		if m := s.models.rows[id]; m.GetVersion() == version {
			return m
		}
	}
	return nil
}

// Holdings are those of one model, by worker.
func (s *State) Holdings(modelID uint64) []*logpb.Holding { return slices.Clone(s.holdings[modelID]) }

// HoldingsOf are those of one worker, by model id.
func (s *State) HoldingsOf(worker string) []*logpb.Holding {
	var found []*logpb.Holding
	for _, id := range s.models.keys {
		if h := s.Holding(id, worker); h != nil {
			found = append(found, h)
		}
	}
	return found
}

// Holding returns nil if the worker was never told to load the model, or has forgotten it since.
func (s *State) Holding(modelID uint64, worker string) *logpb.Holding {
	if i, found := findHolding(s.holdings[modelID], worker); found {
		return s.holdings[modelID][i]
	}
	return nil
}

func (s *State) loaded(modelID uint64) bool {
	return slices.ContainsFunc(s.holdings[modelID], func(h *logpb.Holding) bool {
		return h.GetStatus() == logpb.HoldingStatus_HOLDING_STATUS_LOADED
	})
}

// The functions below are all that changes records, but for changeCluster. They note the part that has changed, and
// leave alone what is equal already.

func (s *State) storeWorker(w *logpb.Worker) {
	if old := s.Worker(w.GetName()); old == nil || !proto.Equal(old, w) {
		s.workers.put(w.GetName(), w)
		s.changed |= Workers
	}
}

func (s *State) dropWorker(name string) {
	s.workers.delete(name)
	s.changed |= Workers
	s.dropHoldingsOf(name)
}

func (s *State) storeProfile(p *logpb.Profile) {
	if old := s.Profile(p.GetKey()); old == nil || !proto.Equal(old, p) {
		s.profiles.put(keyOf(p.GetKey()), p)
		s.changed |= Profiles
	}
}

func (s *State) storeHolding(h *logpb.Holding) {
	of := s.holdings[h.GetModelId()]
	i, found := findHolding(of, h.GetWorker())
	switch {
	case !found:
		s.holdings[h.GetModelId()] = slices.Insert(of, i, h)
	case proto.Equal(of[i], h):
		return
	default:
		of[i] = h
	}
	s.changed |= Holdings
}

func (s *State) dropHolding(modelID uint64, worker string) {
	of := s.holdings[modelID]
	if i, found := findHolding(of, worker); found {
		s.holdings[modelID] = slices.Delete(of, i, i+1)
		s.changed |= Holdings
	}
}

func (s *State) dropHoldingsOf(worker string) {
	for _, id := range s.models.keys {
		s.dropHolding(id, worker)
	}
}

func findHolding(holdings []*logpb.Holding, worker string) (int, bool) {
	return slices.BinarySearchFunc(holdings, worker, func(h *logpb.Holding, worker string) int {
		return strings.Compare(h.GetWorker(), worker)
	})
}

func (s *State) storeModel(m *logpb.Model) {
	if _, known := s.models.rows[m.GetId()]; !known {
		ids := s.versions[m.GetName()]
		i, _ := slices.BinarySearchFunc(ids, m.GetVersion(), func(id uint64, version string) int {
			return compareVersions(version, s.models.rows[id].GetVersion())
		})
		s.versions[m.GetName()] = slices.Insert(ids, i, m.GetId())
	}
	s.models.put(m.GetId(), m)
	s.changed |= Models
}

func (s *State) dropModel(m *logpb.Model) {
	ids := slices.DeleteFunc(s.versions[m.GetName()], func(id uint64) bool { return id == m.GetId() })
	if len(ids) == 0 {
		delete(s.versions, m.GetName())
	} else {
		s.versions[m.GetName()] = ids
	}
	s.models.delete(m.GetId())
	s.changed |= Models
	if len(s.holdings[m.GetId()]) > 0 {
		s.changed |= Holdings
	}
	delete(s.holdings, m.GetId())
}

// table is a map that is walked in the order of its keys.
type table[K comparable, V any] struct {
	rows    map[K]V
	keys    []K // ascending
	compare func(K, K) int
}

func newTable[K comparable, V any](compare func(K, K) int) table[K, V] {
	return table[K, V]{rows: map[K]V{}, compare: compare}
}

func (t *table[K, V]) put(key K, value V) {
	if i, found := slices.BinarySearchFunc(t.keys, key, t.compare); !found {
		t.keys = slices.Insert(t.keys, i, key)
	}
	t.rows[key] = value
}

func (t *table[K, V]) delete(key K) {
	if i, found := slices.BinarySearchFunc(t.keys, key, t.compare); found {
		t.keys = slices.Delete(t.keys, i, i+1)
	}
	delete(t.rows, key)
}

// values are in the order of their keys, in a slice of the caller's own.
func (t *table[K, V]) values() []V {
	values := make([]V, len(t.keys))
	for i, key := range t.keys {
		values[i] = t.rows[key]
	}
	return values
}
