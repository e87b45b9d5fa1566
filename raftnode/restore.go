package raftnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// restoreReason condemns the store of a leader while it restores.
const restoreReason = "a restore was begun, and it is not known whether the cluster has completed it"

// LastIndex returns the index of the newest entry that this replica has, committed
// or not. What is restored is given a higher one.
func (n *Node) LastIndex() uint64 { return n.raft.LastIndex() }

// Restore replaces the state of all replicas by content, which is size bytes of
// what the FSM's Restore reads. The members stay as they are. It returns when a
// majority has taken it over; the others follow. Commands that are under way have
// an unknown outcome.
//
// Content is read wholly, into memory, before anything happens. It has to be one
// that the FSM can read: a leader that takes it over and fails at that panics.
//
// An error that is ErrUnknown leaves open whether the state was or will be
// replaced; after any other it surely was not. The leader takes the new state over
// before the others know of it. If it loses its lead then, its state may be one
// that the cluster never had: a fault is reported, and the next Open sets its
// store aside and begins a new replica.
func (n *Node) Restore(ctx context.Context, size int64, content io.Reader) error {
	if err := n.restore(ctx, size, content); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

func (n *Node) restore(ctx context.Context, size int64, content io.Reader) error {
	servers, err := n.changeable(ctx)
	if err != nil {
		return err
	}
	state, err := io.ReadAll(io.LimitReader(content, size+1))
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if int64(len(state)) != size {
		return fmt.Errorf("read the state: it is not of %d bytes", size)
	}
	// Raft reads nothing of a restore that is followed by a refusal.
	if err := n.Barrier(ctx); err != nil {
		return err
	}
	answer := make(chan error, 1)
	if !n.requests.begin(func() { answer <- n.install(servers, state) }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
}

// install has raft restore state. It waits without a limit: raft would otherwise
// give up between its two steps, of which the first changes this replica and the
// second tells the others.
func (n *Node) install(servers []Server, state []byte) (err error) {
	pledge, err := n.pledge(servers)
	if err != nil {
		return err
	}
	reader := &startedReader{Reader: bytes.NewReader(state)}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: n.LastIndex(), Size: int64(len(state))}
	err = n.raft.Restore(meta, reader, 0)
	switch {
	case err == nil:
		if err := pledge.lift(); err != nil {
			// Restored, but the next Open will not believe it.
			return fmt.Errorf("%w: %w", ErrUnknown, n.store.faults.check("complete a restore", err))
		}
		return nil
	case !reader.started:
		return errors.Join(standing(err), pledge.lift())
	default:
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
		select {
		case <-n.closed:
		default:
			err = n.store.faults.check("complete a restore", err)
		}
		return err
	}
}

// startedReader knows whether somebody has begun to read it.
type startedReader struct {
	io.Reader
	started bool
}

func (r *startedReader) Read(p []byte) (int, error) {
	r.started = true
	return r.Reader.Read(p)
}

// pledge is a condemnation to be lifted; empty if there is none.
type pledge string

// pledge condemns this replica's store for the time of a restore if the others can
// elect a leader without it. They may then never hear of the restored state, and
// give its index to something else, which raft takes for known here.
func (n *Node) pledge(servers []Server) (pledge, error) {
	voters := 0
	for _, s := range servers {
		if s.Voter {
			voters++
		}
	}
	if voters-1 < voters/2+1 {
		return "", nil
	}
	if err := condemned(n.store.dir); err != nil {
		return "", err
	}
	return pledge(n.store.dir), Condemn(n.store.dir, restoreReason)
}

// lift ends the condemnation, unless it was replaced by one for another reason.
func (p pledge) lift() error {
	if p == "" {
		return nil
	}
	path := filepath.Join(string(p), condemnedFile)
	reason, err := os.ReadFile(path)
	if err != nil || string(reason) != restoreReason {
		return err
	}
	return renewed(string(p))
}
