package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func (a *app) workerCommand() *cobra.Command {
	return group("worker", "List the workers", a.workerListCommand())
}

func (a *app) workerListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the registered workers", Args: arguments(cobra.NoArgs),
	}
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, _ []string) error {
		answer, err := q.ListWorkers(ctx, &controlpb.ListWorkersRequest{Stale: *stale})
		if err != nil {
			return err
		}
		return q.show(answer, func(w io.Writer) {
			workersTable(w, answer.Workers)
			staleNote(w, answer.Freshness)
		})
	})
}

func workersTable(w io.Writer, workers []*controlpb.WorkerInfo) {
	t := newTable(w, "NAME", "STATUS", "SESSION", "HEARD", "QUEUE", "FREE PAGES", "DEVICES", "ENGINES", "MODELS", "PROBLEM")
	defer t.flush()
	for _, info := range workers {
		worker, live := info.Worker, cmp.Or(info.Live, &controlpb.WorkerLive{})
		var devices, engines []string
		for _, d := range worker.GetDevices() {
			devices = append(devices, d.Kind)
		}
		for _, e := range worker.GetEngines() {
			engines = append(engines, e.Name)
		}
		heard, queue, pages := "", "", ""
		if live.Connected {
			heard = short(time.Duration(live.LastHeartbeatAgoNs)) + " ago"
			queue = strconv.Itoa(int(live.QueueLength))
			pages = fmt.Sprintf("%d/%d", live.FreePages, live.Pages)
		}
		t.row(worker.GetName(), workerStatus(worker, live), yesNo(live.Connected), heard, queue, pages,
			strings.Join(devices, ","), strings.Join(engines, ","), strings.Join(info.Models, ","), live.Error)
	}
}

// workerStatus is what the registry says, unless the leader has lost sight of a
// worker that the registry still counts on.
func workerStatus(w *logpb.Worker, live *controlpb.WorkerLive) string {
	if w.GetStatus() == logpb.WorkerStatus_WORKER_STATUS_READY && !live.GetConnected() {
		return "away"
	}
	return word(w.GetStatus(), "WORKER_STATUS_")
}
