package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func (a *app) workerCommand() *cobra.Command {
	return group("worker", "List workers, and take them in and out of service",
		a.workerListCommand(), a.workerStatusCommand(), a.workerCordonCommand(), a.workerResumeCommand(),
		a.workerDrainCommand(), a.workerEvictCommand(), a.workerRemoveCommand())
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

func (a *app) workerStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "status NAME", Short: "Show all that is known of a worker", Args: arguments(cobra.ExactArgs(1)),
	}
	stale := staleFlag(c)
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		answer, err := q.ListWorkers(ctx, &controlpb.ListWorkersRequest{Name: args[0], Stale: *stale})
		if err != nil {
			return err
		}
		return q.show(answer, func(w io.Writer) {
			for _, info := range answer.Workers {
				showWorker(w, info)
			}
			staleNote(w, answer.Freshness)
		})
	})
}

// statusCommand makes a command that gives a worker a status.
func (a *app) statusCommand(c *cobra.Command, status logpb.WorkerStatus, done string) *cobra.Command {
	c.Args = arguments(cobra.ExactArgs(1))
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		worker, err := q.SetWorkerStatus(ctx, args[0], status, 0)
		if err != nil {
			return err
		}
		return q.show(&controlpb.SetWorkerStatusResponse{Worker: worker}, func(w io.Writer) { fmt.Fprintf(w, done+"\n", args[0]) })
	})
}

func (a *app) workerCordonCommand() *cobra.Command {
	return a.statusCommand(&cobra.Command{
		Use:   "cordon NAME",
		Short: "Give a worker no new work; it keeps what it holds",
		Long: `Takes a worker out of the schedule. What it has in hand is still answered, and it
keeps its models and weights, so that "orrery worker resume" puts it back at once.
Copies of models that want a number of them are placed elsewhere meanwhile.`,
	}, logpb.WorkerStatus_WORKER_STATUS_CORDONED, "worker %s gets no new work; `orrery worker resume` ends that")
}

func (a *app) workerResumeCommand() *cobra.Command {
	return a.statusCommand(&cobra.Command{
		Use:   "resume NAME",
		Short: "Give a worker work again",
		Long:  `Ends a cordon, a drain, an eviction or a quarantine.`,
	}, logpb.WorkerStatus_WORKER_STATUS_READY, "worker %s is given work again")
}

func (a *app) workerEvictCommand() *cobra.Command {
	return a.statusCommand(&cobra.Command{
		Use:   "evict NAME",
		Short: "Take all models off a worker, at once",
		Long: `Takes a worker out of the schedule and all models off its devices and out of its
memory, as soon as what it has in hand is answered. Nothing is waited for: a model
that no other worker holds is not served until one has loaded it. The worker stays
connected, and gets its models back with "orrery worker resume".`,
	}, logpb.WorkerStatus_WORKER_STATUS_EVICTED, "worker %s gives up all models; `orrery worker resume` ends that")
}

// drainPoll is the pause between two looks at a worker that drains.
const drainPoll = 250 * time.Millisecond

func (a *app) workerDrainCommand() *cobra.Command {
	deadline, wait := 5*time.Minute, true
	c := &cobra.Command{
		Use:   "drain NAME",
		Short: "Have a worker hand over its models, and leave",
		Long: `Gives a worker no new work, but for models that no other worker serves yet. Once
others serve all of its models, or the deadline has passed, its process ends and
it leaves the registry. The drain goes on when the wait is cut short;
"orrery worker resume" calls it off.`,
		Args: arguments(cobra.ExactArgs(1)),
	}
	c.Flags().DurationVar(&deadline, "deadline", deadline, "leave after this, whatever is still to be handed over; 0 is never")
	c.Flags().BoolVar(&wait, "wait", wait, "wait until it has left")
	return a.asks(c, 10*time.Minute, func(ctx context.Context, q *query, args []string) error {
		if deadline < 0 {
			return usageError{fmt.Errorf("--deadline is %v: it can't be negative", deadline), c.CommandPath()}
		}
		worker, err := q.SetWorkerStatus(ctx, args[0], logpb.WorkerStatus_WORKER_STATUS_DRAINING, deadline)
		if err != nil {
			return err
		}
		if !wait {
			return q.show(&controlpb.SetWorkerStatusResponse{Worker: worker}, func(w io.Writer) { fmt.Fprintf(w, "worker %s drains\n", args[0]) })
		}
		if err := q.awaitDrained(ctx, worker); err != nil {
			return err
		}
		return q.show(&controlpb.SetWorkerStatusResponse{Worker: worker}, func(w io.Writer) { fmt.Fprintf(w, "worker %s has left\n", args[0]) })
	})
}

// awaitDrained waits until a worker has left, or drains no more.
func (q *query) awaitDrained(ctx context.Context, drained *logpb.Worker) error {
	for {
		answer, err := q.ListWorkers(ctx, &controlpb.ListWorkersRequest{})
		if err != nil {
			return err
		}
		var now *logpb.Worker
		for _, info := range answer.Workers {
			if info.Worker.GetName() == drained.GetName() {
				now = info.Worker
			}
		}
		switch {
		case now == nil || now.Incarnation != drained.GetIncarnation():
			return nil
		case now.Status != logpb.WorkerStatus_WORKER_STATUS_DRAINING:
			return fmt.Errorf("worker %s does not drain any more: it is %s", now.Name, word(now.Status, "WORKER_STATUS_"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("worker %s still drains; `orrery worker status %s` shows it, and `orrery worker resume %s` calls it off", now.Name, now.Name, now.Name)
		case <-time.After(drainPoll):
		}
	}
}

func (a *app) workerRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a worker that is away out of the registry",
		Long: `Forgets a worker that is away for good, so that nothing waits for it. One that is
connected would be registered again at once: drain it, or stop its process first.`,
		Args: arguments(cobra.ExactArgs(1)),
	}
	return a.asks(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		if err := q.RemoveWorker(ctx, args[0]); err != nil {
			return err
		}
		return q.show(&controlpb.RemoveWorkerResponse{}, func(w io.Writer) { fmt.Fprintf(w, "worker %s removed\n", args[0]) })
	})
}

func workersTable(w io.Writer, workers []*controlpb.WorkerInfo) {
	t := newTable(w, "NAME", "STATUS", "ADDRESS", "SPEED", "HEARD", "QUEUE", "FREE PAGES", "DEVICES", "ENGINES", "MODELS", "PROBLEM")
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
			heard = ago(live)
			queue = strconv.Itoa(int(live.QueueLength))
			pages = fmt.Sprintf("%d/%d", live.FreePages, live.Pages)
		}
		t.row(worker.GetName(), info.State, worker.GetSessionAddress(), speed(worker), heard, queue, pages,
			few(devices), strings.Join(engines, ","), few(info.Models), workerProblem(live))
	}
}

// ago is when a connected worker was last heard.
func ago(live *controlpb.WorkerLive) string {
	return short(max(time.Duration(live.GetLastHeartbeatAgoNs()), time.Microsecond)) + " ago"
}

// clockText compares a worker's clock with the leader's, of which each counts from
// the start of its process.
func clockText(offset time.Duration) string {
	switch {
	case offset < 0:
		return "began " + short(-offset) + " after the leader's"
	case offset > 0:
		return "began " + short(offset) + " before the leader's"
	}
	return ""
}

// few lists names, but not many of them.
func few(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s,… (%d)", strings.Join(names[:most], ","), len(names))
	}
	return strings.Join(names, ",")
}

func speed(w *logpb.Worker) string { return strconv.FormatFloat(w.GetSpeed(), 'g', 3, 64) }

// workerProblem is what an operator should know first.
func workerProblem(live *controlpb.WorkerLive) string {
	switch {
	case live.GetQuarantinedNs() > 0:
		return fmt.Sprintf("in quarantine for another %s: %s", short(time.Duration(live.QuarantinedNs)), live.QuarantineReason)
	case stuck(live) != "":
		return stuck(live)
	case live.GetTwin() != "":
		return "a second worker of this name was refused, at " + live.Twin
	}
	return live.GetError()
}

// stuckAfter is how long a device may execute one thing before that is worth
// telling.
const stuckAfter = 10 * time.Second

// stuck names a device that has been executing one thing for long.
func stuck(live *controlpb.WorkerLive) string {
	for _, d := range live.GetDevices() {
		if d.ExecutingNs > int64(stuckAfter) {
			return fmt.Sprintf("device %d has been executing %s for %s", d.Index, d.Executing, short(time.Duration(d.ExecutingNs)))
		}
	}
	return ""
}

// showWorker prints one worker, a line for each thing that is known.
func showWorker(w io.Writer, info *controlpb.WorkerInfo) {
	worker, live := info.Worker, cmp.Or(info.Live, &controlpb.WorkerLive{})
	t := newTable(w)
	t.row("name", worker.GetName())
	t.row("status", info.State)
	t.row("problem", workerProblem(live))
	t.row("address", worker.GetSessionAddress())
	t.row("incarnation", worker.GetIncarnation())
	t.row("registered", time.Unix(0, worker.GetRegisteredUnixNs()).UTC().Format(time.RFC3339))
	t.row("speed", speed(worker))
	var labels, engines []string
	for _, l := range worker.GetLabels() {
		labels = append(labels, l.Key+"="+l.Value)
	}
	for _, e := range worker.GetEngines() {
		engines = append(engines, e.Name+" "+e.Version)
	}
	t.row("labels", strings.Join(labels, ", "))
	t.row("engines", strings.Join(engines, ", "))
	t.row("models", strings.Join(info.Models, ", "))
	if until := worker.GetDrainUntilUnixNs(); until != 0 {
		t.row("leaves by", time.Unix(0, until).UTC().Format(time.RFC3339))
	}
	if live.Connected {
		t.row("heard", ago(live))
		t.row("round trip", short(time.Duration(live.RoundTripNs)))
		t.row("clock", clockText(time.Duration(live.ClockOffsetNs)))
		t.row("queue", strconv.Itoa(int(live.QueueLength)))
		t.row("repairs", strconv.Itoa(int(live.Repairs)))
	}
	t.flush()
	if len(live.Devices) == 0 {
		return
	}
	fmt.Fprintln(w)
	d := newTable(w, "DEVICE", "KIND", "QUEUE", "FREE PAGES", "EXECUTING", "FOR", againstKind, "WEIGHTS")
	checks := map[uint32]*logpb.DeviceCheck{}
	for _, c := range worker.GetChecks() {
		checks[c.Device] = c
	}
	for _, device := range live.Devices {
		d.row(strconv.Itoa(int(device.Index)), device.Kind, strconv.Itoa(int(device.Queued)), fmt.Sprintf("%d/%d", device.FreePages, device.Pages),
			device.Executing, short(time.Duration(device.ExecutingNs)), ratioText(checks[device.Index]), few(device.Resident))
	}
	d.flush()
	deviationNote(w, slices.ContainsFunc(worker.GetChecks(), deviates))
}
