package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// epoch is the instant of a run's beginning: above 0, which means "none" where
// an instant is optional.
const epoch = scheduler.Instant(time.Second)

// patience is how long, after the clients' last request, a run goes on for
// answers.
const patience = 10 * time.Minute

// simulation is a run.
type simulation struct {
	scenario *Scenario
	fresh    func() scheduler.Policy

	now    scheduler.Instant
	end    scheduler.Instant // of sending
	agenda agenda

	// The controller. policy is nil while there is no leader.
	policy    scheduler.Policy
	wake      scheduler.Instant
	events    []scheduler.Event
	decisions scheduler.Decisions
	// infers are the Infers without a result.
	infers map[scheduler.ActionID]*job
	desk   desk

	workers []*worker
	byName  map[string]*worker
	models  []modelState
	sources []*source

	network, execution *rand.Rand
	book               *book
	// violation is the first breach of the policy's contract.
	violation error
}

// modelState is a model while it is simulated.
type modelState struct {
	*Model
	id scheduler.ModelID
	// resident is on how many devices its weights are.
	resident int
	// times[k][rows] is what a batch takes on the kind of device k.
	times map[string][]time.Duration
}

// Run plays a scenario and reports what came of it. Each leader has a policy of
// its own, which fresh makes. An error is one of the scenario, or a breach of its
// contract by the policy.
func Run(scenario Scenario, fresh func() scheduler.Policy) (*Report, error) {
	if err := scenario.check(); err != nil {
		return nil, err
	}
	if scenario.Silence == 0 {
		scenario.Silence = 400 * time.Millisecond
	}
	s := newSimulation(&scenario, fresh)
	s.begin()
	if !s.play() {
		return nil, ErrStopped
	}
	if s.violation != nil {
		return nil, fmt.Errorf("at %v the policy broke its contract: %w", s.now.Sub(epoch), s.violation)
	}
	s.settle()
	return s.report(), nil
}

func newSimulation(scenario *Scenario, fresh func() scheduler.Policy) *simulation {
	s := &simulation{
		scenario: scenario, fresh: fresh, now: epoch, end: epoch.Add(scenario.Duration),
		byName:    map[string]*worker{},
		network:   rand.New(rand.NewPCG(scenario.Seed, 1)),
		execution: rand.New(rand.NewPCG(scenario.Seed, 2)),
	}
	for i := range scenario.Models {
		m := modelState{Model: &scenario.Models[i], id: scheduler.ModelID(i + 1), times: map[string][]time.Duration{}}
		for _, w := range scenario.Workers {
			for _, d := range w.Devices {
				if p := m.profile(d.Kind); p != nil && m.times[d.Kind] == nil {
					times := make([]time.Duration, m.largest()+1)
					for rows := 1; rows <= m.largest(); rows++ {
						times[rows] = p.time(rows)
					}
					m.times[d.Kind] = times
				}
			}
		}
		s.models = append(s.models, m)
	}
	for i := range scenario.Workers {
		w := newWorker(s, &scenario.Workers[i], i)
		s.workers = append(s.workers, w)
		s.byName[w.Name] = w
	}
	s.book = newBook(scenario)
	for i := range scenario.Workloads {
		s.sources = append(s.sources, newSource(&scenario.Workloads[i], i, scenario))
	}
	return s
}

// begin plans what is known from the beginning.
func (s *simulation) begin() {
	for i, c := range s.sources {
		closed, isClosed := c.Arrivals.(Closed)
		if !isClosed {
			s.plan(int32(i), c.start)
			continue
		}
		for _, m := range c.models {
			for range closed.InFlight {
				s.agenda.push(event{at: c.start, kind: clientSends, who: int32(i), which: int32(m)})
			}
		}
	}
	for i, f := range s.faults() {
		s.agenda.push(event{at: epoch.Add(f.at), kind: fault, who: int32(i)})
	}
	s.lead()
}

// plan plans a source's request that follows one at an instant.
func (s *simulation) plan(who int32, after scheduler.Instant) {
	if at, model, ok := s.sources[who].following(after); ok {
		s.agenda.push(event{at: at, kind: sourceSends, who: who, which: int32(model)})
	}
}

// askEvery is after how many steps Stopped is asked.
const askEvery = 1 << 14

// play lets time pass until all requests have been answered. It says false when
// it was stopped.
func (s *simulation) play() bool {
	last := s.end.Add(patience)
	for n := 1; s.violation == nil; n++ {
		if n%askEvery == 0 && s.scenario.Stopped != nil && s.scenario.Stopped() {
			return false
		}
		if s.now >= s.end && s.desk.inHand == 0 {
			return true
		}
		next := s.wake
		if len(s.agenda.events) > 0 && (next == 0 || s.agenda.events[0].at < next) {
			next = s.agenda.events[0].at
		}
		if next == 0 || next > last {
			return true
		}
		s.now = max(s.now, next)
		for len(s.agenda.events) > 0 && s.agenda.events[0].at <= s.now {
			e := s.agenda.pop()
			s.happen(&e)
		}
		if s.policy != nil && (len(s.events) > 0 || s.wake != 0 && s.wake <= s.now) {
			s.step()
		}
	}
	return true
}

func (s *simulation) happen(e *event) {
	switch e.kind {
	case sourceSends:
		s.submit(e.who, e.which)
		s.plan(e.who, e.at)
	case clientSends:
		if e.at < s.sources[e.who].end {
			s.submit(e.who, e.which)
		}
	case actionArrives, cancelArrives, executed, transferred, look:
		s.workers[e.who].happen(e)
	case resultArrives, reportArrives:
		s.hear(e)
	case connectionEnds, silent:
		s.lose(e)
	case fault:
		s.strike(int(e.who))
	case leaderComes:
		s.lead()
	case heldTooLong:
		if r := s.desk.find(e.request); r != nil && s.policy == nil {
			s.over(r, ended{outcome: failed, why: noLeader})
		}
	}
}

// step lets the policy decide, and carries out what it decides.
func (s *simulation) step() {
	s.decisions.Reset()
	s.policy.Step(s.now, s.events, &s.decisions)
	clear(s.events)
	s.events = s.events[:0]
	out := &s.decisions
	s.wake = out.Wake
	if s.wake != 0 && s.wake <= s.now {
		s.breach("it wants to be woken at %v, which is not in the future", s.wake.Sub(epoch))
	}
	s.book.steps++
	s.book.decisions += uint64(len(out.Actions) + len(out.Completions))
	for _, id := range out.Abandoned {
		s.abandon(id)
	}
	for i := range out.Actions {
		s.carryOut(&out.Actions[i])
	}
	for i := range out.Completions {
		s.complete(&out.Completions[i])
	}
}

// tell tells the narrator, who must be there, what happens.
func (s *simulation) tell(format string, args ...any) {
	s.scenario.Narrator(s.now.Sub(epoch), fmt.Sprintf(format, args...))
}

func describe(j *job) string {
	what := fmt.Sprintf("#%d %v of model %d to %s/%d", j.ID, j.Kind, j.Model, j.Worker, j.Device)
	if j.Kind == scheduler.Infer {
		what += fmt.Sprintf(", %d rows, expected %v", j.Rows, j.Expected)
	}
	return what
}

func outcomeName(o scheduler.Outcome) string {
	return [...]string{"ok", "refused", "failed", "skipped"}[o]
}

func (s *simulation) breach(format string, args ...any) {
	if s.violation == nil {
		s.violation = fmt.Errorf(format, args...)
	}
}

// carryOut sends an action to its worker.
func (s *simulation) carryOut(a *scheduler.Action) {
	w := s.byName[a.Worker]
	switch {
	case w == nil || !w.connected:
		s.breach("%v %d goes to worker %q, which is not there", a.Kind, a.ID, a.Worker)
		return
	case a.Device < 0 || a.Device >= len(w.devices):
		s.breach("%v %d goes to device %d of %s, which has %d", a.Kind, a.ID, a.Device, a.Worker, len(w.devices))
		return
	case a.Model < 1 || int(a.Model) > len(s.models):
		s.breach("%v %d is for model %d of %d", a.Kind, a.ID, a.Model, len(s.models))
		return
	}
	j := &job{Action: *a, model: int32(a.Model - 1), session: w.session, life: w.life}
	if a.Kind == scheduler.Infer {
		s.auditBatch(j)
		s.infers[a.ID] = j
	}
	if s.scenario.Narrator != nil {
		s.tell("-> %s", describe(j))
	}
	s.toWorker(w, event{kind: actionArrives, which: int32(a.Device), job: j})
}

// auditBatch holds a batch against what it is said to be.
func (s *simulation) auditBatch(j *job) {
	rows, m := 0, &s.models[j.model]
	for _, id := range j.Requests {
		r := s.desk.find(id)
		if r == nil {
			s.breach("Infer %d has request %d, which is not in hand", j.ID, id)
			return
		}
		if r.model != j.model {
			s.breach("Infer %d of model %d has request %d of model %d", j.ID, j.Model, id, r.model+1)
		}
		rows += int(r.rows)
	}
	if rows != j.Rows || rows > m.largest() || rows == 0 || m.Alone && len(j.Requests) > 1 {
		s.breach("Infer %d has %d rows in %d requests and says %d; model %d takes %d at most",
			j.ID, rows, len(j.Requests), j.Rows, j.Model, m.largest())
	}
}

// abandon has the worker leave out a batch that it has not begun.
func (s *simulation) abandon(id scheduler.ActionID) {
	j := s.infers[id]
	if j == nil {
		s.breach("it abandons action %d, which is no Infer without a result", id)
		return
	}
	s.toWorker(s.byName[j.Worker], event{kind: cancelArrives, which: int32(j.Device), job: j})
}

// delay draws how long a message is on its way.
func (s *simulation) delay() time.Duration {
	n := &s.scenario.Network
	if n.Jitter == 0 {
		return n.Delay
	}
	return n.Delay + time.Duration((2*s.network.Float64()-1)*float64(n.Jitter))
}

// toWorker sends a message on the worker's stream.
func (s *simulation) toWorker(w *worker, e event) {
	w.lastOut = max(w.lastOut, s.now.Add(s.delay()))
	e.at, e.who, e.session = w.lastOut, w.index, w.session
	s.agenda.push(e)
}

// toController sends one the other way.
func (s *simulation) toController(w *worker, e event) {
	w.lastIn = max(w.lastIn, s.now.Add(s.delay()))
	e.at, e.who, e.session = w.lastIn, w.index, w.session
	s.agenda.push(e)
}

// hear takes in what a worker says. Of an earlier session nothing is heard.
func (s *simulation) hear(e *event) {
	w := s.workers[e.who]
	if !w.connected || e.session != w.session {
		return
	}
	if e.kind == reportArrives {
		s.events = append(s.events, scheduler.Reported{Worker: w.description()})
		return
	}
	if s.scenario.Narrator != nil {
		s.tell("<- #%d %s, engine %v", e.result.Action, outcomeName(e.result.Outcome), e.result.Engine)
	}
	delete(s.infers, e.result.Action)
	s.events = append(s.events, scheduler.Finished{Result: e.result})
}
