package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/node"
	"github.com/orrery-project/orrery/proto/controlpb"
)

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "Save, inspect and restore the cluster's state", a.snapshotSaveCommand(), a.snapshotInspectCommand(), a.snapshotRestoreCommand())
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "save FILE", Short: "Save the cluster's state to a file",
		Long: `Saves all that the replicas have agreed on to a file: settings, workers, models,
holdings, profiles. With --stale it works without a leader too, and saves what
the controller knows. FILE must not exist.`,
		Example: "  orrery cluster snapshot save orrery-$(date +%F).snapshot",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	stale := staleFlag(c)
	return a.asks(c, time.Minute, func(ctx context.Context, q *query, args []string) error {
		summary, err := save(args[0], func(w io.Writer) error {
			return q.SaveSnapshot(ctx, &controlpb.SaveSnapshotRequest{Stale: *stale}, w)
		})
		if err != nil {
			return err
		}
		return q.show(summary, func(w io.Writer) { summaryTable(w, summary) })
	})
}

// save writes a snapshot to a file that is not there yet: all of it, or none.
func save(path string, write func(io.Writer) error) (_ *controlpb.SnapshotSummary, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already; name another file", path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = file.Close()
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	if err := write(file); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	summary, err := node.InspectSnapshot(file)
	if err != nil {
		return nil, err
	}
	return summary, os.Rename(file.Name(), path)
}

func (a *app) snapshotInspectCommand() *cobra.Command {
	q := &query{app: a}
	c := &cobra.Command{
		Use: "inspect FILE", Short: "Verify a snapshot, and show what is in it",
		Args: arguments(cobra.ExactArgs(1)),
	}
	q.outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := q.checkOutput(c); err != nil {
			return err
		}
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		summary, err := node.InspectSnapshot(file)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return q.show(summary, func(w io.Writer) { summaryTable(w, summary) })
	}
	return c
}

func (a *app) snapshotRestoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "restore FILE", Short: "Replace the running cluster's state by a snapshot's",
		Long: `Replaces all that the replicas have agreed on by what a snapshot holds, on the
running cluster; what was agreed on since the snapshot is gone. A new epoch
begins, so that nothing of an earlier leader is accepted any more. Workers
report what they hold; what the snapshot wants and they lack is loaded again.

A snapshot of another cluster is refused. When that cluster is gone for good,
found a new one, and restore with --replace-cluster: the new one takes the old
one's id, and with it its running workers. Workers that have already joined the
new cluster have to be started again.`,
		Example: "  orrery cluster snapshot restore orrery-2026-11-22.snapshot",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	replace := c.Flags().Bool("replace-cluster", false, "restore a snapshot of another cluster, which is gone for good")
	return a.asks(c, time.Minute, func(ctx context.Context, q *query, args []string) error {
		snapshot, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		// A bad file is best refused before anybody is asked.
		if _, err := node.InspectSnapshot(bytes.NewReader(snapshot)); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		epoch, err := q.RestoreSnapshot(ctx, snapshot, *replace)
		if err != nil {
			return err
		}
		return q.show(&controlpb.RestoreSnapshotResponse{Epoch: epoch}, func(w io.Writer) { fmt.Fprintf(w, "restored; epoch %d begins\n", epoch) })
	})
}

func summaryTable(w io.Writer, s *controlpb.SnapshotSummary) {
	fmt.Fprintf(w, "cluster   %s, epoch %d, version %d\n", s.Cluster.GetId(), s.Cluster.GetEpoch(), s.Cluster.GetVersion())
	fmt.Fprintf(w, "phase     %s\n", word(s.Cluster.GetPhase(), "PHASE_"))
	fmt.Fprintf(w, "state     of index %d, %s\n", s.Index, time.Unix(0, s.NowUnixNs).UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "content   %s, %s, %s, %s\n", plural(int(s.Workers), "worker"), plural(int(s.Models), "model"),
		plural(int(s.Holdings), "holding"), plural(int(s.Profiles), "profile"))
	fmt.Fprintf(w, "format    %d, %s\n", s.Format, plural(int(s.Bytes), "byte"))
	fmt.Fprintf(w, "digest    %s\n", s.Digest)
}
