package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// replacePoll is the pause between two looks at a replacement.
const replacePoll = 250 * time.Millisecond

func (a *app) modelReplaceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "replace NAME --source PATH",
		Short: "Have a new version take a model's place, without a gap",
		Long: `Loads a new version of a model beside the one that serves, measures it, fetches its
weights onto devices, and then has it take over: from then on requests that name no
version go to it. The version before answers what it has, and is unloaded. Waits
until the new version has taken over, and says so when it can't: until then the
present version goes on serving. If the wait is cut short the cluster goes on.

What is not given by flags stays as it is with the present version, but for the
engine, which the source decides. A cluster that serves takes the new version like
any load: when the startup is reopened ("orrery startup reopen") or late loads are
admitted ("orrery cluster set late_loads=admit").`,
		Example: "  orrery model replace fashion-mlp --source fashion-mlp-v2.onnx",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	flags := newLoadFlags(c, "one above the newest", "as it is")
	return a.asks(c, 10*time.Minute, func(ctx context.Context, q *query, args []string) error {
		wanted, err := flags.model(args[0])
		if err != nil {
			return err
		}
		versions, err := q.ListModels(ctx, &controlpb.ListModelsRequest{Name: wanted.Name})
		if errors.Is(err, errs.UnknownModel) {
			return fmt.Errorf("there is no model %q that could be replaced: `orrery model load` loads a new one", wanted.Name)
		}
		if err != nil {
			return err
		}
		wanted.Replace = true
		flags.keep(presentVersion(versions.Models))
		return q.replace(ctx, wanted, versions.Models)
	})
}

// keep takes over from a model what the flags do not give.
func (l *loadFlags) keep(m *logpb.Model) {
	if m == nil {
		return
	}
	given := l.c.Flags().Changed
	if !given("slo") {
		l.wanted.SloNs = m.SloNs
	}
	if !given("max-rows") {
		l.wanted.MaxRows = m.MaxRows
	}
	if !given("copies") {
		l.wanted.Copies = m.Copies
	}
	if !given("label") {
		l.wanted.Constraints = m.Constraints
	}
	if !given("largest") {
		l.wanted.Largest = m.Largest
	}
}

// presentVersion is the version that serves: the newest, but better one that can be
// served than one that can't. nil: there is none.
func presentVersion(versions []*controlpb.ModelStatus) (present *logpb.Model) {
	best := uint64(0)
	for _, m := range versions {
		n, err := strconv.ParseUint(m.Model.GetVersion(), 10, 64)
		if err != nil || m.Model.GetRetiring() || m.Model.GetReplaces() != 0 {
			continue
		}
		const serves = 1 << 63
		if n = min(n, serves-2) + 1; m.Reason == "" {
			n |= serves
		}
		if n > best {
			present, best = m.Model, n
		}
	}
	return present
}

// replace has a new version take over, with its progress on standard error. versions
// are those that there were before.
func (q *query) replace(ctx context.Context, wanted *logpb.LoadModel, versions []*controlpb.ModelStatus) error {
	shown := q.showLoads(ctx, func(m *controlpb.ModelProgress) bool {
		return m.Name == wanted.Name && !slices.ContainsFunc(versions, func(v *controlpb.ModelStatus) bool {
			return v.Model.GetVersion() == m.Version && v.Model.GetReplaces() == 0
		})
	})
	models, err := q.loadModel(ctx, wanted)
	if err == nil && len(models) != 1 {
		err = fmt.Errorf("the answer names %s instead of one", plural(len(models), "model"))
	}
	if err != nil {
		shown.end()
		return err
	}
	r := &replacement{query: q, shown: shown, now: models[0], old: models[0].Model.GetReplaces()}
	before := slices.ContainsFunc(versions, func(v *controlpb.ModelStatus) bool { return v.Model.GetId() == models[0].Model.GetId() })
	r.over = r.old == 0 && !before
	if i := slices.IndexFunc(versions, func(v *controlpb.ModelStatus) bool { return v.Model.GetId() == r.old }); i >= 0 {
		r.before = "version " + versions[i].Model.GetVersion()
	} else {
		r.before = "the version before"
	}
	failed := r.await(ctx)
	shown.end()
	err = q.show(&controlpb.LoadModelResponse{Models: []*controlpb.ModelStatus{r.now}}, func(w io.Writer) {
		copiesTable(w, []*controlpb.ModelStatus{r.now})
		if failed == nil {
			fmt.Fprintf(w, "\n%s\n", r.outcome())
		}
	})
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if bad, all := failedCopies([]*controlpb.ModelStatus{r.now}); bad > 0 {
		return fmt.Errorf("%d of %d copies of version %s failed to load; mend the cause, then replace it once more", bad, all, r.now.Model.GetVersion())
	}
	return nil
}

// replacement is a new version on its way.
type replacement struct {
	*query
	shown *loadProgress
	now   *controlpb.ModelStatus
	// old is the id of the model that is replaced, and before says its version; 0:
	// there was nothing left to do, or it was over before the answer came.
	old    uint64
	before string
	over   bool
}

func (r *replacement) outcome() string {
	m := r.now.Model
	if r.old == 0 && !r.over {
		return fmt.Sprintf("version %s of %s is there already, and replaces nothing", m.GetVersion(), m.GetName())
	}
	return fmt.Sprintf("version %s of %s has taken the place of %s, which ends what it has and is then unloaded", m.GetVersion(), m.GetName(), r.before)
}

// await waits until the new version has taken over; an error says why it has not.
func (r *replacement) await(ctx context.Context) error {
	m := r.now.Model
	if r.old == 0 {
		return nil
	}
	for {
		if failed, all := failedCopies([]*controlpb.ModelStatus{r.now}); failed == all && all > 0 {
			return r.giveUp("it failed to load everywhere")
		}
		answer, err := r.ListModels(ctx, &controlpb.ListModelsRequest{Name: m.GetName(), Version: m.GetVersion()})
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("version %s of %s has not taken over yet: %s; %s goes on serving until it does, "+
				"`orrery model status %s` shows it, and `orrery model unload %s --model-version %s` calls it off",
				m.GetVersion(), m.GetName(), r.waitsFor(), r.before, m.GetName(), m.GetName(), m.GetVersion())
		case err != nil && !errors.Is(err, errs.UnknownModel):
			return err
		case len(answer.GetModels()) != 1 || answer.Models[0].Model.GetId() != m.GetId():
			return fmt.Errorf("version %s of %s was unloaded before it took over: %s goes on serving", m.GetVersion(), m.GetName(), r.before)
		}
		r.now = answer.Models[0]
		if r.now.Model.GetReplaces() == 0 {
			return nil
		}
		if why := r.hopeless(); why != "" {
			return r.giveUp(why)
		}
		r.shown.say("version " + m.GetVersion() + ": " + r.waitsFor())
		select {
		case <-ctx.Done():
		case <-time.After(replacePoll):
		}
	}
}

// waitsFor is why the new version has not taken over yet.
func (r *replacement) waitsFor() string {
	return cmp.Or(r.now.Reason, "it is measured, and its weights are fetched")
}

// hopeless is why the new version can't take over unless somebody does something.
func (r *replacement) hopeless() string {
	switch errs.Reason(r.now.Code) {
	case errs.LoadFailed, errs.NoMemory, errs.NoEngine, errs.NoMatch, errs.NoRoom, errs.ModelBlamed:
		return obstacleText(r.now)
	case errs.NotProfiled:
		for _, p := range r.shown.seen() {
			if p.Version == r.now.Model.GetVersion() && p.ProfilesFailed > 0 && p.ProfilesFailed == p.ProfilesWanted {
				return "it could not be measured on any kind of device, the leader's log says why"
			}
		}
	}
	return ""
}

func (r *replacement) giveUp(why string) error {
	m := r.now.Model
	return fmt.Errorf("version %s of %s can't take over: %s; %s goes on serving; mend the cause, "+
		"`orrery model unload %s --model-version %s`, and replace again",
		m.GetVersion(), m.GetName(), why, r.before, m.GetName(), m.GetVersion())
}
