package raftnode

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// ErrNoState says that a directory holds no replica, or one that never belonged to
// a cluster.
var ErrNoState = errors.New("no replica's state")

// recoveryRetains is how many snapshots a recovery leaves: its own, and the one
// before.
const recoveryRetains = 2

// RecoverOptions says which replica becomes its cluster.
type RecoverOptions struct {
	Dir     string // data directory of a replica that does not run
	Address string // at which peers will reach it
	Logger  hclog.Logger

	// FSM is a fresh one. It takes over all that the replica knows, and its
	// Snapshot, taken then, is what the cluster begins with. Discard it afterwards.
	FSM raft.FSM
}

// Recovered is what a stopped replica holds. Of the survivors of a cluster the one
// with the highest LastTerm, and among those the highest LastIndex, has all that
// was ever acknowledged, if any of them has.
type Recovered struct {
	ID        string
	Term      uint64 // newest that it has seen
	LastTerm  uint64 // of its newest entry, or of its snapshot if that is newer
	LastIndex uint64
	Servers   []Server // the newest configuration in its log, committed or not
}

// Inspect returns what the replica in dir holds, which must not run, without
// changing it. The errors are those of Recover.
func Inspect(dir string, logger hclog.Logger) (Recovered, error) {
	r, err := inspectDir(dir, logger)
	if err != nil {
		return Recovered{}, fmt.Errorf("inspect replica in %s: %w", dir, err)
	}
	return r, nil
}

func inspectDir(dir string, logger hclog.Logger) (_ Recovered, err error) {
	store, err := openExisting(dir, logger)
	if err != nil {
		return Recovered{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return inspect(store)
}

// Recover makes a stopped replica, whose cluster has lost its quorum for good, the
// only voter of that cluster. It keeps its id and all that is in its log, also
// what was never acknowledged, and returns what it held before. Others are added
// once it leads; they have to begin with empty directories.
//
// Replicas that were thought to be lost can do it no harm when they come back:
// those that have not seen the recovery can't exchange messages with it. They may
// be a quorum of the cluster as it was, and lead that.
//
// The error is ErrNoState if there is nothing to recover. A store that is damaged
// is refused, too. After an error Recover may be called again.
func Recover(opts RecoverOptions) (Recovered, error) {
	r, err := recoverDir(opts)
	if err != nil {
		return Recovered{}, fmt.Errorf("recover replica in %s: %w", opts.Dir, err)
	}
	return r, nil
}

func recoverDir(opts RecoverOptions) (former Recovered, err error) {
	if opts.FSM == nil {
		return former, errors.New("no FSM given")
	}
	if err := checkDialable(opts.Address); err != nil {
		return former, fmt.Errorf("address %q: %w", opts.Address, err)
	}
	store, err := openExisting(opts.Dir, opts.Logger)
	if err != nil {
		return former, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	former, err = inspect(store)
	if err != nil {
		return former, err
	}

	// First: a replica with a line of its own and its old configuration is alone,
	// one with a new configuration and without a line can be overruled.
	line := make([]byte, identityBytes)
	_, _ = rand.Read(line) // never fails: it ends the process instead
	if err := store.Set(lineKey, []byte(hex.EncodeToString(line))); err != nil {
		return former, fmt.Errorf("note the recovery: %w", err)
	}
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(former.ID)
	config.Logger = opts.Logger
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(opts.Address)) // only encodes addresses
	return former, raft.RecoverCluster(config, opts.FSM, store, store, store.snapshots, transport,
		raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(former.ID), Address: raft.ServerAddress(opts.Address),
		}}})
}

// openExisting opens the store in dir, if there is one and it is sound: to set a
// damaged one aside, as Open does, could be to set aside the last copy.
func openExisting(dir string, logger hclog.Logger) (*store, error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	if _, err := os.Stat(databasePath(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s", ErrNoState, databaseFile)
	} else if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	store, err := openIntact(Options{Dir: dir, Logger: logger, Snapshots: Snapshots{Retain: recoveryRetains}})
	if err != nil {
		_ = lock.Close()
		var damage *damageError
		if errors.As(err, &damage) {
			err = fmt.Errorf("the store is damaged, take another survivor: %w", err)
		}
		return nil, err
	}
	store.lock = lock
	return store, nil
}

// inspect reads what store holds.
func inspect(store *store) (r Recovered, err error) {
	used, err := raft.HasExistingState(store, store, store.snapshots)
	if err != nil {
		return r, err
	}
	if !used {
		return r, fmt.Errorf("%w: this replica never belonged to a cluster", ErrNoState)
	}
	id, err := store.Get(identityKey)
	if err != nil {
		return r, fmt.Errorf("read the replica's id: %w", err)
	}
	r.ID = string(id)
	if r.Term, err = store.GetUint64(termKey); err != nil {
		return r, fmt.Errorf("read the term: %w", err)
	}
	snapshots, err := store.snapshots.List()
	if err != nil {
		return r, err
	}
	var configuration raft.Configuration
	if len(snapshots) > 0 {
		newest := snapshots[0]
		r.LastIndex, r.LastTerm, configuration = newest.Index, newest.Term, newest.Configuration
	}
	last, err := store.LastIndex()
	if err != nil {
		return r, err
	}
	for index := r.LastIndex + 1; index <= last; index++ {
		var entry raft.Log
		if err := store.GetLog(index, &entry); err != nil {
			return r, err
		}
		r.LastIndex, r.LastTerm = entry.Index, entry.Term
		if entry.Type == raft.LogConfiguration {
			configuration = raft.DecodeConfiguration(entry.Data)
		}
	}
	r.Servers = serversOf(configuration)
	if len(r.Servers) == 0 {
		return r, fmt.Errorf("%w: this replica never belonged to a cluster", ErrNoState)
	}
	return r, nil
}
