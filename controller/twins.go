package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// A name is one worker's. Of two live workers of one name the one that is
// registered goes on, and the other is refused and told why. One that was
// restarted is no second one: the first does not answer any more.

const (
	// twinTimeout bounds the question whether somebody is alive at an address.
	twinTimeout = 500 * time.Millisecond
	// The pause between two looks at another address of a connected worker's
	// name: it may be a second worker's, or one that gossip has not forgotten.
	twinPauseMin = time.Second
	twinPauseMax = 30 * time.Second
)

// twins is what is known of other workers with a worker's name.
type twins struct {
	// asking says that a look goes on; next is when another one is due.
	asking bool
	next   time.Time
	pause  time.Duration
	// cleared is an incarnation that may take the place of the one registered.
	cleared string
	// refused names the second worker, for the operator; empty: there is none.
	refused string
}

// sole says whether the worker of a session may be registered: the one that has
// its name in the registry must not be alive elsewhere. When that is not known it
// is found out, and the worker has to wait.
func (k *coordinator) sole(s *fsm.State, w *connection) bool {
	record, said := s.Worker(w.name), w.report.Worker
	if record == nil || record.Incarnation == said.Incarnation || record.SessionAddress == said.SessionAddress ||
		w.twins.cleared == said.Incarnation {
		return true
	}
	if w.twins.asking {
		return false
	}
	w.twins.asking = true
	session := w.session
	k.wait.Go(func() {
		first, err := k.lookAt(w.name, record.SessionAddress, nil)
		k.mailbox.post(func() {
			w.twins.asking = false
			if w.session != session {
				return
			}
			if err != nil || first.Incarnation != record.Incarnation {
				w.twins.cleared = said.Incarnation
				return
			}
			k.log.Error("a second worker of one name was refused", "worker", w.name, "address", said.SessionAddress, "incarnation", said.Incarnation)
			w.twins.refused = twinName(said)
			k.wait.Go(func() { session.dismiss(twinRefusal(first)) })
		})
	})
	return false
}

// lookForTwins looks, now and then, whether there is a second worker at another
// address that goes by the name of a connected one, and refuses that.
func (k *coordinator) lookForTwins(w *connection) {
	if !w.registered || w.twins.asking || time.Now().Before(w.twins.next) {
		return
	}
	others := w.otherAddresses()
	if len(others) == 0 {
		w.twins = twins{cleared: w.twins.cleared}
		return
	}
	w.twins.asking = true
	session, own := w.session, w.report.Worker
	k.wait.Go(func() {
		second := ""
		for _, address := range others {
			found, err := k.lookAt(w.name, address, own)
			if err == nil && found.Incarnation != own.Incarnation {
				second = twinName(found)
			}
		}
		k.mailbox.post(func() {
			w.twins.asking = false
			if w.session != session {
				return
			}
			if second != "" && second != w.twins.refused {
				k.log.Error("a second worker of one name was refused", "worker", w.name, "second", second)
			}
			w.twins.refused = second
			w.twins.pause = min(max(2*w.twins.pause, twinPauseMin), twinPauseMax)
			w.twins.next = time.Now().Add(w.twins.pause)
		})
	})
}

// lookAt asks who is at an address, by a session that changes nothing. When own is not
// nil and another incarnation answers, that one is refused.
func (k *coordinator) lookAt(name, address string, own *logpb.Worker) (*logpb.Worker, error) {
	ctx, cancel := context.WithTimeout(k.ctx, twinTimeout)
	defer cancel()
	o := k.sessionOptions(name, address)
	o.probe = true
	s, err := openSession(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	found := s.first.Worker
	if own != nil && found.Incarnation != own.Incarnation {
		s.dismiss(twinRefusal(own))
	}
	return found, nil
}

func twinName(w *logpb.Worker) string {
	return fmt.Sprintf("%s (incarnation %s)", w.SessionAddress, w.Incarnation)
}

func twinRefusal(first *logpb.Worker) string {
	return fmt.Sprintf("worker %s is alive already, at %s, as incarnation %s: a name is one worker's; give this one another name, or stop the other",
		first.Name, first.SessionAddress, first.Incarnation)
}
