package histories

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// errOddAnswer says that an answer is not one that the protocol allows.
var errOddAnswer = errors.New("the answer makes no sense")

// habits are how a client works.
type habits struct {
	// kinds is what it does, each as often as it is listed.
	kinds []kind
	// think is the longest pause between two operations.
	think time.Duration
	// patience are the times that it may wait for the answer to an attempt; it
	// chooses one for each operation.
	patience []time.Duration
	// attempts is how often it sends a request at most.
	attempts int
	// losing is the share of the operations whose first answer gets lost on its
	// way, so that a client which has been served asks again.
	losing float64
}

// rest is the longest pause after an operation without a result.
const rest = 600 * time.Millisecond

// actor is one client. Unlike our client library it makes only so many
// attempts, and chooses the request id itself, to know its own requests again.
type actor struct {
	id      int
	choose  *rand.Rand
	habits  habits
	names   *names
	history *history
	// controllers are what it can ask, and where is the name of each.
	controllers []controlpb.ControlClient
	where       []string
	made        int // operations
	problem     func(error)
}

// run makes operations until ctx ends. The last one is brought to its end.
func (a *actor) run(ctx context.Context) {
	for ctx.Err() == nil {
		think := a.habits.think
		if o := a.operate(a.next()); !o.hasResult() {
			// Nobody keeps asking for more when nothing answers. And each unknown
			// outcome makes the search for an order longer.
			think = rest
		}
		pause(ctx, time.Duration(a.choose.Int64N(int64(think)+1)))
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// next chooses what to do.
func (a *actor) next() input {
	return a.make(a.habits.kinds[a.choose.IntN(len(a.habits.kinds))])
}

// make is a new operation of a kind.
func (a *actor) make(what kind) input {
	a.made++
	i := input{Kind: what, Request: fmt.Sprintf("r%d-%d", a.id, a.made)}
	switch what {
	case set:
		i.Key, i.Value = settingsKey, fmt.Sprintf("v%d-%d", a.id, a.made)
	case read:
		i.Key = settingsKey
	default:
		i.Key = a.names.choose(a.choose)
		i.SLO = int64(1+a.choose.IntN(2)) * int64(10*time.Millisecond)
	}
	return i
}

// approach is how one operation is brought about.
type approach struct {
	// at is the controller that is asked first. The next attempt goes to the next
	// one, as with our client.
	at, attempts int
	patience     time.Duration
	// lose says that the first answer gets lost.
	lose bool
}

// operate makes one operation in the client's usual way.
func (a *actor) operate(i input) output {
	return a.operateBy(approach{
		at:       a.choose.IntN(len(a.controllers)),
		attempts: a.habits.attempts,
		patience: a.habits.patience[a.choose.IntN(len(a.habits.patience))],
		lose:     a.choose.Float64() < a.habits.losing,
	}, i)
}

// operateBy makes one operation and notes it down.
func (a *actor) operateBy(by approach, i input) output {
	op := operation{Client: a.id, Input: i, Call: a.history.now()}
	maybe := false
	for attempt := 1; ; attempt++ {
		at := (by.at + attempt - 1) % len(a.controllers)
		o, again := a.attempt(i, at, by.patience)
		text := fmt.Sprintf("%s: %s", a.where[at], o.Status)
		if o.Error != "" {
			text += ": " + o.Error
		}
		if by.lose && attempt == 1 {
			again, o = true, output{Status: unknown, Error: "the answer got lost"}
			text += ", and the answer got lost"
		}
		op.Attempts = append(op.Attempts, text)
		maybe = maybe || o.Status == unknown
		if !again || attempt >= by.attempts {
			op.Output = o
			break
		}
		pause(context.Background(), time.Duration(a.choose.Int64N(int64(30*time.Millisecond))))
	}
	if maybe && op.Output.Status == nothing {
		// The last attempt did nothing. An earlier one may have.
		op.Output.Status = unknown
	}
	op.Return = a.history.now()
	a.history.add(op)
	return op.Output
}

// attempt sends the request once. again says that another attempt may tell
// more.
func (a *actor) attempt(i input, at int, patience time.Duration) (o output, again bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o, err := ask(ctx, a.controllers[at], i)
	if err == nil {
		return o, false
	}
	if errors.Is(err, errOddAnswer) {
		a.problem(fmt.Errorf("%s answered %v: %w", a.where[at], i, err))
	}
	e := errs.From(grpcerr.FromStatus(err))
	o = output{Error: fmt.Sprintf("%s: %s", e.Reason, e.Message)}
	switch e.Execution {
	case errs.NotExecuted:
		o.Status = nothing
	case errs.Executed:
		o.Status = executed
	default:
		o.Status = unknown
	}
	if isResult(i.Kind, e) {
		o.Status = refused
		return o, false
	}
	return o, o.Status != executed
}

// isResult says whether a refusal tells of the state.
func isResult(k kind, e *errs.Error) bool {
	switch k {
	case load:
		return errors.Is(e, errs.Conflict)
	case unload, list:
		return errors.Is(e, errs.UnknownModel)
	}
	return false
}

// ask makes the call that an operation is.
func ask(ctx context.Context, c controlpb.ControlClient, i input) (output, error) {
	o := output{Status: done}
	switch i.Kind {
	case load:
		answer, err := c.LoadModel(ctx, &controlpb.LoadModelRequest{RequestId: i.Request, Model: wish(i)})
		if err != nil {
			return o, err
		}
		return o, o.show(answer.Models)
	case unload:
		answer, err := c.UnloadModel(ctx, &controlpb.UnloadModelRequest{RequestId: i.Request, Name: i.Key})
		if err != nil {
			return o, err
		}
		if len(answer.ModelIds) != 1 {
			return o, fmt.Errorf("%w: unloaded %v", errOddAnswer, answer.ModelIds)
		}
		o.ID = answer.ModelIds[0]
	case list:
		answer, err := c.ListModels(ctx, &controlpb.ListModelsRequest{Name: i.Key})
		if err != nil {
			return o, err
		}
		return o, o.show(answer.Models)
	case set:
		answer, err := c.SetSettings(ctx, &controlpb.SetSettingsRequest{RequestId: i.Request, Settings: settingsWith(i.Value)})
		if err != nil {
			return o, err
		}
		o.Value = valueOf(answer.Settings)
	case read:
		answer, err := c.ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
		if err != nil {
			return o, err
		}
		if answer.Freshness.GetStale() {
			return o, errs.New(errs.NoLeader, "the answer says that it is stale")
		}
		o.Value = valueOf(answer.Cluster.GetSettings())
	}
	return o, nil
}

// show takes over what an answer says of the one model that it may be about.
func (o *output) show(models []*controlpb.ModelStatus) error {
	if len(models) != 1 || models[0].Model.GetId() == 0 {
		return fmt.Errorf("%w: models %v", errOddAnswer, models)
	}
	m := models[0].Model
	o.ID, o.Creator, o.SLO = m.Id, m.RequestId, m.SloNs
	return nil
}

// wish is the model that a load asks for.
func wish(i input) *logpb.LoadModel {
	m := proto.CloneOf(placed(i.Key))
	m.Name, m.SloNs = i.Key, i.SLO
	return m
}
