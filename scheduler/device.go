package scheduler

import (
	"slices"
	"time"
)

// worker is a worker that is up.
type worker struct {
	name    string
	devices []*device
	heard   Instant // when it last gave a result, or came up
	// trials are the actions without a result that were sent although they may
	// kill it.
	trials   int
	reserved bool // one of its devices is
	trip     roundTrip
}

// action is an action without a result.
type action struct {
	Action
	place *place
	batch []*request
	pages int // that an EvictWeights frees
	// trial: it may kill the worker. abandoned: nothing is expected of it, and
	// its batch has been taken back.
	trial, abandoned bool
	// due is when it should be over, but for the network; set once it is the
	// first of its lane. Its result is planned to be there by then and allow.
	due   Instant
	allow time.Duration
	// sent says since when it is the only action of an idle lane. 0: it queued.
	sent Instant
	// passed is the first deadline of a request in it that has not been
	// completed; 0: none has one.
	passed Instant
}

// lane is what one engine of a device (execution, or transfer of weights) has
// been told to do and has not reported: the first runs, the others queue.
type lane struct {
	actions []*action
	behind  time.Duration // expected time of all but the first
	overdue bool          // the first is
}

func (l *lane) add(now Instant, a *action, trip *roundTrip) {
	if len(l.actions) == 0 {
		a.due, a.allow, a.sent = now.Add(a.Expected), trip.lag(now), now
	} else {
		l.behind += a.Expected
	}
	l.actions = append(l.actions, a)
}

// remove takes out an action that is over; if it was the first, the next one
// is taken to start now.
func (l *lane) remove(now Instant, a *action, trip *roundTrip) {
	i := slices.Index(l.actions, a)
	if i < 0 {
		return
	}
	l.actions = slices.Delete(l.actions, i, i+1)
	if i > 0 {
		l.behind -= a.Expected
		return
	}
	l.overdue = false
	if len(l.actions) > 0 {
		next := l.actions[0]
		l.behind -= next.Expected
		next.due, next.allow = now.Add(next.Expected), trip.jitter(now)
	}
}

// free is when the results of all that the lane has are there: what is added
// then, or a round trip before, follows without a gap. An idle lane is free now.
func (l *lane) free(now Instant) Instant {
	if len(l.actions) == 0 {
		return now
	}
	first := l.actions[0]
	return max(now, first.due.Add(first.allow)).Add(l.behind)
}

// lateAt is when the engine will be so late that nothing is to be expected of
// it: by margin, or by as much again as the action was to take, after its result was
// planned to be there. 0: it is idle.
func (l *lane) lateAt(margin time.Duration) Instant {
	if len(l.actions) == 0 {
		return 0
	}
	first := l.actions[0]
	return first.due.Add(first.allow + max(margin, first.Expected))
}

func (l *lane) late(now Instant, margin time.Duration) bool {
	at := l.lateAt(margin)
	return l.overdue || at != 0 && now >= at
}

// device is a device of a worker that is up, with a mirror of its pages.
type device struct {
	worker    string
	host      *worker
	index     int
	order     int // in core.devices
	core      *core
	kind      string
	speed     float64
	pages     int
	pageBytes int64

	used int // pages
	// lent pages, of the rest, are the caller's, and so will be the others of
	// lending, once they can be spared.
	lent, lending int
	byModel       map[ModelID]*place
	places        []*place
	resident      []*place
	slots         []int32 // of the models of resident, in its order

	// trying: a trial runs, alone. reserved: one will, once the lane is empty.
	trying, reserved bool
	execution        lane
	transfer         lane
	loading          int // LoadWeights in transfer
	pace             pace
	evictions        evictionBudget
	alarm            alarm
	stirred          bool // it is in core.stirred
	changed          bool // it is in core.changed
	bound            int  // waiting requests that only it is to run
	unfit            bool // it is in core.unfit
	gone             bool // with its worker
}

// fits says how many pages weights take, and whether that is possible at all.
func (d *device) fits(weightsBytes int64) (pages int, ok bool) {
	if weightsBytes <= 0 {
		return 0, true
	}
	if d.pageBytes <= 0 {
		return 0, false
	}
	n := (weightsBytes-1)/d.pageBytes + 1
	return int(n), n <= int64(d.pages)
}

// free is how many pages weights may take.
func (d *device) free() int { return d.pages - d.used - d.lent }

func (d *device) idle() bool {
	return len(d.execution.actions) == 0 && len(d.transfer.actions) == 0
}

type residence int

const (
	absent residence = iota
	arriving
	resident
)

// place is a model on a device: held in the worker's host memory, or with
// weights on the device, or both.
type place struct {
	device *device
	model  *model
	timing *timing
	held   bool
	state  residence
	// What the counts of the model and the timing include of this place.
	countedUsable, countedPresent int
	// taken is how many pages the weights occupy while state is not absent.
	taken   int
	running int // Infers without a result
	used    Instant
	// loadedBy is the last LoadWeights; what earlier actions say of the
	// weights is out of date.
	loadedBy ActionID
	backOff  backOff
}

// usable says that work for the model may be planned here.
func (pl *place) usable() bool {
	if !pl.held || !pl.model.known || !pl.timing.profiled {
		return false
	}
	_, ok := pl.device.fits(pl.model.WeightsBytes)
	return ok
}

// execution is how long so many rows should take here.
func (pl *place) execution(now Instant, rows int) time.Duration {
	if factor := pl.device.pace.at(now); factor > 0 {
		return time.Duration(float64(pl.timing.profiledTime(rows)) * factor)
	}
	return pl.timing.execution(now, rows)
}

// load is how long its weights should take to come.
func (pl *place) load(now Instant) time.Duration { return pl.timing.load.estimate(now) }

func (pl *place) hold(held bool) {
	pl.held = held
	pl.recount()
}

// become changes the state of the weights and the account of the pages.
func (pl *place) become(s residence, pages int) {
	d := pl.device
	if pl.state != absent {
		d.used -= pl.taken
	}
	if s != absent {
		d.used += pages
	}
	if pl.state == resident && s != resident {
		i := slices.Index(d.resident, pl)
		d.resident = slices.Delete(d.resident, i, i+1)
		d.slots = slices.Delete(d.slots, i, i+1)
	}
	if pl.state != resident && s == resident {
		d.resident = append(d.resident, pl)
		d.slots = append(d.slots, pl.model.slot)
	}
	pl.state, pl.taken = s, pages
	pl.recount()
	d.core.touch(d)
}

// recount brings the counts of the model and the timing up to date.
func (pl *place) recount() {
	usable, present := 0, 0
	if pl.usable() {
		usable = 1
		if pl.state != absent {
			present = 1
		}
	}
	pl.model.runs.put(pl.device.order, usable == 1 && pl.state == resident)
	if usable == 0 || pl.state != resident {
		pl.device.core.mayBeUnfit(pl.device)
	}
	pl.model.usable += usable - pl.countedUsable
	pl.timing.usable += usable - pl.countedUsable
	pl.model.present += present - pl.countedPresent
	pl.timing.present += present - pl.countedPresent
	if usable != pl.countedUsable || present != pl.countedPresent {
		c := pl.device.core
		c.stir(pl.model)
		c.changedModel(pl.model)
		c.lacksWeights(pl.model)
	}
	pl.countedUsable, pl.countedPresent = usable, present
	pl.device.core.keepPinned(pl.model)
}

// backOff keeps a place that fails from being tried again at once.
type backOff struct {
	failures int
	until    Instant
}

// fail doubles the pause. What was already on its way when the pause began
// does not count.
func (b *backOff) fail(now Instant, first, most time.Duration) {
	if now < b.until {
		return
	}
	pause := first
	for range min(b.failures, 16) {
		pause = min(2*pause, most)
	}
	b.failures++
	b.until = now.Add(pause)
}

func (b *backOff) succeed() { *b = backOff{} }
