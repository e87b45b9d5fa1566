package fsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// digestsKept is how many digests a replica can still be asked for.
const digestsKept = 64

// applied is the part that every entry changes: the index.
const applied = All + 1

// ErrDiverged says that this replica's state is not the one that the majority has.
var ErrDiverged = errors.New("this replica's state is not the cluster's")

// Options configure a Replica.
type Options struct {
	// OnFault is called once, from Apply, when this replica can't go on: with a command that it doesn't know, or that
	// its state can't follow, or when its state has diverged. The process must stop. Default: panic.
	OnFault func(error)
	// Version has the replica act as a release that applies schemas up to it: for tests of clusters in which not all
	// members are updated. 0, or more than this release applies: Version.
	Version uint32
}

// Replica is one replica's State, driven by hashicorp/raft. Its methods may be called from any goroutine.
type Replica struct {
	onFault func(error)
	version uint32

	mu    sync.RWMutex
	state *State
	// index is the state's, but while a digest is computed: that is done when the entry is.
	index   uint64
	fault   error         // set once; nothing is applied afterwards
	digests []indexDigest // the last digestsKept, the oldest first

	notify  sync.Mutex
	changed [2 * applied]chan struct{} // by set of parts; nil while nobody waits
}

type indexDigest struct {
	index  uint64
	digest string
}

var _ raft.FSM = (*Replica)(nil)

// NewReplica returns a replica of the empty state.
func NewReplica(o Options) *Replica {
	if o.OnFault == nil {
		o.OnFault = func(err error) { panic(err) }
	}
	if o.Version == 0 || o.Version > Version {
		o.Version = Version
	}
	return &Replica{onFault: o.OnFault, version: o.Version, state: newState(o.Version)}
}

// Version is the newest command schema that this replica applies.
func (r *Replica) Version() uint32 { return r.version }

// Apply applies an entry, which is an encoded logpb.Command, and returns a *logpb.Result, not to be modified. On a fault
// it returns the error after OnFault has returned; all later entries get the same error and are not applied.
func (r *Replica) Apply(entry *raft.Log) any {
	r.mu.RLock()
	fault := r.fault
	r.mu.RUnlock()
	if fault != nil {
		return fault
	}
	result, changed, err := r.apply(entry)
	if err != nil {
		fault = fmt.Errorf("apply log entry %d: %w", entry.Index, err)
		r.mu.Lock()
		r.fault = fault
		r.mu.Unlock()
	}
	r.announce(changed | applied)
	if fault != nil {
		r.onFault(fault)
		return fault
	}
	return result
}

// apply computes a digest while readers go on: it takes long, and raft applies nothing meanwhile.
func (r *Replica) apply(entry *raft.Log) (*logpb.Result, Part, error) {
	var cmd logpb.Command
	if err := proto.Unmarshal(entry.Data, &cmd); err != nil {
		return nil, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	result, toDigest, err := r.state.apply(entry.Index, &cmd)
	if err != nil {
		return nil, 0, err
	}
	if toDigest != nil {
		r.mu.Unlock()
		result.Digest = digestOf(toDigest)
		r.mu.Lock()
		r.keep(indexDigest{entry.Index, result.Digest})
	}
	r.index = entry.Index
	if result.GetReason() == logpb.Reason_REASON_NONE {
		err = r.compare(cmd.GetCheckDigest())
	}
	return result, r.state.takeChanged(), err
}

func (r *Replica) keep(d indexDigest) {
	if len(r.digests) == digestsKept {
		r.digests = r.digests[1:]
	}
	r.digests = append(r.digests, d)
}

// compare fails if this replica came to another digest than the majority. It may not know its own any more.
func (r *Replica) compare(c *logpb.CheckDigest) error {
	own, ok := r.digestAt(c.GetIndex())
	if !ok || strings.EqualFold(own, c.GetDigest()) {
		return nil
	}
	return fmt.Errorf("%w: at index %d it has the digest %s, the majority has %s: remove its data directory, so that it comes back as a new replica; a copy of that directory shows what went wrong",
		ErrDiverged, c.GetIndex(), own, c.GetDigest())
}

// Snapshot returns quickly; the encoding is left to Persist. A replica with a fault takes none.
func (r *Replica) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.fault != nil {
		return nil, r.fault
	}
	return persister{r.state.Snapshot()}, nil
}

// WriteSnapshot writes the state as it is now, and returns the log index of the last command in it. Nothing is held up
// while it writes. It fails on a replica with a fault, and with the error of the writer.
func (r *Replica) WriteSnapshot(w io.Writer) (index uint64, err error) {
	r.mu.RLock()
	snapshot, fault := r.state.Snapshot(), r.fault
	r.mu.RUnlock()
	if fault != nil {
		return 0, fmt.Errorf("write a snapshot: %w", fault)
	}
	return snapshot.state.GetHeader().GetIndex(), snapshot.Encode(w)
}

// Restore replaces the state by a snapshot's. If that is bad, the state stays as it is.
func (r *Replica) Restore(from io.ReadCloser) error {
	defer from.Close()
	state, err := restore(bufio.NewReader(from), r.version)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.state, r.index = state, state.Index()
	r.digests = nil
	r.mu.Unlock()
	r.announce(All | applied)
	return nil
}

// Read calls f with the state, which must neither be changed nor be kept after f returns; records may be kept. Nothing
// is applied while f runs: it must be short, and must not call the replica's methods.
func (r *Replica) Read(f func(*State)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state)
}

// Changed is closed after the next change of any of the parts, or when a snapshot is restored. To miss none, take it
// before reading. Entries that change no record of the parts don't close it.
func (r *Replica) Changed(parts Part) <-chan struct{} { return r.next(parts & All) }

func (r *Replica) next(parts Part) <-chan struct{} {
	r.notify.Lock()
	defer r.notify.Unlock()
	if r.changed[parts] == nil {
		r.changed[parts] = make(chan struct{})
	}
	return r.changed[parts]
}

func (r *Replica) announce(changed Part) {
	r.notify.Lock()
	defer r.notify.Unlock()
	for parts, c := range r.changed {
		if c != nil && Part(parts)&changed != 0 {
			close(c)
			r.changed[parts] = nil
		}
	}
}

// Index is the log index of the last command applied. Raft's own entries (barriers, memberships, a new leader's
// no-op) don't reach the replica, so raft's index may be ahead.
func (r *Replica) Index() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.index
}

// WaitIndex waits until the command at the index is applied, or a later one. The index must be a command's, such as
// Result.Index: one of raft's own entries may be reached only by the next command. It fails when the context ends or
// the replica has a fault.
func (r *Replica) WaitIndex(ctx context.Context, index uint64) error {
	for {
		next := r.next(applied)
		r.mu.RLock()
		reached, fault := r.index, r.fault
		r.mu.RUnlock()
		switch {
		case fault != nil: // also when it was reached: the state may not be the cluster's
			return fmt.Errorf("wait for log index %d: %w", index, fault)
		case reached >= index:
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("wait for log index %d, at %d: %w", index, reached, ctx.Err())
		}
	}
}

// DigestAt is the digest that the TakeDigest command at the index gave. It is kept for the last 64 of those that this
// process has applied since it started or restored a snapshot.
func (r *Replica) DigestAt(index uint64) (digest string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.digestAt(index)
}

func (r *Replica) digestAt(index uint64) (digest string, ok bool) {
	for _, d := range r.digests {
		if d.index == index {
			return d.digest, true
		}
	}
	return "", false
}

// recoverer is a replica of which a snapshot is taken after a lost quorum.
type recoverer struct{ *Replica }

// NewRecoverer returns what raft.RecoverCluster needs to rebuild a cluster from what one replica has: it takes in the
// snapshot and the log, and its own snapshot then has a higher epoch and leaves out ids that may have been given in
// what was lost (State.succeed says why). A command that can't be applied makes Snapshot fail.
func NewRecoverer() raft.FSM {
	return recoverer{NewReplica(Options{OnFault: func(error) {}})} // raft drops what Apply returns, Snapshot does not
}

func (r recoverer) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.fault != nil {
		return nil, r.fault
	}
	return persister{&Snapshot{r.state.recovered()}}, nil
}

// persister writes a snapshot to raft's store.
type persister struct{ snapshot *Snapshot }

func (p persister) Persist(sink raft.SnapshotSink) error {
	if err := p.snapshot.Encode(sink); err != nil {
		_ = sink.Cancel() // the first error says more
		return err
	}
	return sink.Close()
}

func (p persister) Release() {}
