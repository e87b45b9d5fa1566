package controller

import (
	"slices"
	"time"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// This file has devices measured, whether to make a profile or to check a device.
// While the cluster serves that goes on beside the schedule: it gets only a share of
// the device's time, and the scheduler lends it the pages that the weights need.

const (
	// crowdedRetry is the pause after a device had no room or time for a measurement.
	crowdedRetry = time.Second
	// crowdedPatience is how long room is waited for on one device; then that counts as
	// a failure.
	crowdedPatience = 30 * time.Second
)

// crowded says whether a measurement failed for what else there is on the device:
// that says nothing of the model.
func crowded(c sessionpb.ResultCode) bool {
	switch c {
	case sessionpb.ResultCode_RESULT_CODE_CACHE_EXHAUSTED, sessionpb.ResultCode_RESULT_CODE_TOO_EARLY, sessionpb.ResultCode_RESULT_CODE_WEIGHTS_IN_USE,
		sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT:
		return true
	}
	return false
}

// measuring is a measurement in a worker's hands.
type measuring struct {
	place
	wanted *sessionpb.Profile
	// done is called with the result; nil when the worker went away.
	done func(*measuring, *sessionpb.Result)

	session *session
	began   time.Time
	// lent: the scheduler has been asked for pages.
	lent bool
	// retryAt is when it is tried again, while it is stalled.
	retryAt time.Time
}

// failed says whether a result tells that what was to be measured can't be.
func (m *measuring) failed(r *sessionpb.Result) bool {
	switch {
	case r == nil || passingLoad(r.Code) || r.Code == sessionpb.ResultCode_RESULT_CODE_OK:
		return false
	case crowded(r.Code):
		return time.Since(m.began) >= crowdedPatience
	}
	return true
}

// pause is how long it is not tried again after a result that is of no use.
func (m *measuring) pause(r *sessionpb.Result) time.Duration {
	if r == nil || passingLoad(r.Code) || m.failed(r) {
		return actionRetry
	}
	return crowdedRetry
}

// measure sends a measurement to its worker.
func (p *profiler) measure(s *fsm.State, m *measuring) {
	m.session, m.began = m.worker.session, time.Now()
	m.worker.profiling[m.device.Index] = m.model.Id
	m.wanted.Largest = m.model.Largest
	if s.Serving() {
		m.wanted.Share = p.k.term.c.tunables.Load().ProfileShare
		if m.lent = !slices.Contains(m.session.vitals().resident[m.device.Index], m.model.Id); m.lent {
			p.lend(m, pagesOf(m.model, m.device))
		}
	}
	p.send(m)
}

func (p *profiler) send(m *measuring) {
	action := &sessionpb.Action{Device: m.device.Index, ModelId: m.model.Id, Body: &sessionpb.Action_Profile{Profile: m.wanted}}
	m.session.do(action, func(r *sessionpb.Result) { p.k.mailbox.post(func() { p.measuredBy(m, r) }) })
}

// measuredBy takes in a result. When there was no room, the scheduler may be about
// to make some.
func (p *profiler) measuredBy(m *measuring, r *sessionpb.Result) {
	if m.worker.session != m.session {
		m.done(m, r)
		return
	}
	if m.lent && r.GetCode() == sessionpb.ResultCode_RESULT_CODE_CACHE_EXHAUSTED && time.Since(m.began) < crowdedPatience {
		m.retryAt = time.Now().Add(actionRetry)
		p.stalled = append(p.stalled, m)
		return
	}
	p.end(m)
	m.done(m, r)
}

// end gives the device back.
func (p *profiler) end(m *measuring) {
	delete(m.worker.profiling, m.device.Index)
	if m.lent {
		p.lend(m, 0)
	}
}

// resume tries again what waits for room.
func (p *profiler) resume(s *fsm.State) {
	p.stalled = slices.DeleteFunc(p.stalled, func(m *measuring) bool {
		switch {
		case m.worker.session != m.session:
			m.done(m, nil)
		case !m.worker.inService(s):
			p.end(m)
			m.done(m, nil)
		case time.Now().Before(m.retryAt):
			return false
		default:
			p.lend(m, pagesOf(m.model, m.device))
			p.send(m)
		}
		return true
	})
}

// lend has the scheduler leave pages of a device to a measurement.
func (p *profiler) lend(m *measuring, pages int) {
	d := p.k.term.dispatcher
	e := scheduler.Lend{Worker: m.worker.name, Device: int(m.device.Index), Pages: pages}
	d.mailbox.post(func() { d.event(e) })
}

// pagesOf is how many pages the model's weights need on a device.
func pagesOf(m *logpb.Model, d *logpb.Device) int {
	if d.PageBytes == 0 {
		return 0
	}
	return int((m.Info.GetWeightsBytes() + d.PageBytes - 1) / d.PageBytes)
}
