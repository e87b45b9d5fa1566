package fsm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// digestsKept is how many digests a replica can still be asked for.
const digestsKept = 64

// Options configure a Replica.
type Options struct {
	// OnFault is called once, from Apply, when this replica can't go on: with a command that it doesn't know, or that
	// its state can't follow. The process must stop. Default: panic.
	OnFault func(error)
}

// Replica is one replica's State, driven by hashicorp/raft. Its methods may be called from any goroutine.
type Replica struct {
	onFault func(error)

	mu      sync.RWMutex
	state   *State
	fault   error         // set once; nothing is applied afterwards
	digests []indexDigest // the last digestsKept, the oldest first

	notify  sync.Mutex
	changed chan struct{} // nil while nobody waits
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
	return &Replica{onFault: o.OnFault, state: New()}
}

// Apply applies an entry, which is an encoded logpb.Command, and returns a *logpb.Result, not to be modified. On a fault
// it returns the error after OnFault has returned; all later entries get the same error and are not applied.
func (r *Replica) Apply(entry *raft.Log) any {
	result, fault, first := r.apply(entry)
	r.announce()
	if first {
		r.onFault(fault)
	}
	if fault != nil {
		return fault
	}
	return result
}

func (r *Replica) apply(entry *raft.Log) (result *logpb.Result, fault error, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != nil {
		return nil, r.fault, false
	}
	var cmd logpb.Command
	err := proto.Unmarshal(entry.Data, &cmd)
	if err == nil {
		result, err = r.state.Apply(entry.Index, &cmd)
	}
	if err != nil {
		r.fault = fmt.Errorf("apply log entry %d: %w", entry.Index, err)
		return nil, r.fault, true
	}
	if digest := result.GetDigest(); digest != "" {
		if len(r.digests) == digestsKept {
			r.digests = r.digests[1:]
		}
		r.digests = append(r.digests, indexDigest{entry.Index, digest})
	}
	return result, nil, false
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

// Restore replaces the state by a snapshot's. If that is bad, the state stays as it is.
func (r *Replica) Restore(from io.ReadCloser) error {
	defer from.Close()
	state, err := Restore(bufio.NewReader(from))
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.state = state
	r.digests = nil
	r.mu.Unlock()
	r.announce()
	return nil
}

// Read calls f with the state, which must neither be changed nor be kept after f returns; records may be kept. Nothing
// is applied while f runs: it must be short, and must not call the replica's methods.
func (r *Replica) Read(f func(*State)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state)
}

// Changed is closed after the next entry was applied or snapshot restored. To miss none, take it before reading.
func (r *Replica) Changed() <-chan struct{} {
	r.notify.Lock()
	defer r.notify.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *Replica) announce() {
	r.notify.Lock()
	defer r.notify.Unlock()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Index is the log index of the last command applied. Raft's own entries (barriers, memberships, a new leader's
// no-op) don't reach the replica, so raft's index may be ahead.
func (r *Replica) Index() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state.Index()
}

// WaitIndex waits until the command at the index is applied, or a later one. The index must be a command's, such as
// Result.Index: one of raft's own entries may be reached only by the next command. It fails when the context ends or
// the replica has a fault.
func (r *Replica) WaitIndex(ctx context.Context, index uint64) error {
	for {
		changed := r.Changed()
		r.mu.RLock()
		applied, fault := r.state.Index(), r.fault
		r.mu.RUnlock()
		switch {
		case applied >= index:
			return nil
		case fault != nil:
			return fmt.Errorf("wait for log index %d: %w", index, fault)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for log index %d, at %d: %w", index, applied, ctx.Err())
		}
	}
}

// DigestAt is the digest that the TakeDigest command at the index gave. It is kept for the last 64 of those that this
// process has applied since it started or restored a snapshot.
func (r *Replica) DigestAt(index uint64) (digest string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, d := range r.digests {
		if d.index == index {
			return d.digest, true
		}
	}
	return "", false
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
