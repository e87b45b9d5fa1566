package controller

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// pinsTold feeds a scheduler, and returns to how many devices models were pinned by
// what it was told.
func pinsTold(k *coordinator, log *soloLog) func() []int {
	var pins []int
	k.term.dispatcher = newDispatcher(log.replica, 1<<20, &script{func(_ scheduler.Instant, events []scheduler.Event, _ *scheduler.Decisions) {
		for _, e := range events {
			if added, ok := e.(scheduler.ModelAdded); ok {
				pins = append(pins, added.Model.Pinned)
			}
		}
	}}, k.term.c.instant, hclog.NewNullLogger())
	k.term.dispatcher.start()
	k.feed.serving = true
	return func() []int {
		pins = nil
		for range 3 {
			log.replica.Read(k.feed.step)
			k.term.dispatcher.step()
		}
		return slices.Clone(pins)
	}
}

func (l *soloLog) pin(t *testing.T, devices uint32) {
	t.Helper()
	l.propose(t, &logpb.Command{Body: &logpb.Command_PinModel{PinModel: &logpb.PinModel{Name: "m", Devices: devices}}})
}

func TestTheSchedulerIsToldOfPinsAtTheStartAndAtChanges(t *testing.T) {
	k, log := soloCoordinator(t, nil, serving...)
	log.raise(t)
	log.pin(t, 2)
	told := pinsTold(k, log)
	for _, step := range []struct {
		pin  uint32
		told []int
	}{
		{2, []int{2}}, // a term begins
		{2, nil},
		{5, []int{5}},
		{0, []int{0}},
		{0, nil},
	} {
		log.pin(t, step.pin)
		if diff := cmp.Diff(step.told, told()); diff != "" {
			t.Errorf("pinned to %d (-want +got):\n%s", step.pin, diff)
		}
	}
}

func TestPinsThatAreRefused(t *testing.T) {
	k, log := soloCoordinator(t, nil, serving...)
	// This replica leads, so that commands are committed here.
	k.term.c.route.set(way{term: k.term})
	service := &controlService{c: k.term.c}
	pin := func(name, version string, devices uint32) error {
		_, err := service.PinModel(t.Context(), &controlpb.PinModelRequest{Name: name, Version: version, Devices: devices})
		return grpcerr.FromStatus(err)
	}
	if err := pin("m", "", 1); !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "needs cluster version 5") {
		t.Errorf("before all controllers are updated: %v", err)
	}
	log.raise(t)
	for _, test := range []struct {
		name, version string
		devices       uint32
		reason        errs.Reason
		words         string
	}{
		{"", "", 1, errs.Invalid, "names no model"},
		{"x", "", 1, errs.UnknownModel, `"x"`},
		{"m", "7", 1, errs.UnknownModel, `version "7"`},
		{"m", "", 10_001, errs.Invalid, "at most to 10000"},
	} {
		if err := pin(test.name, test.version, test.devices); !errors.Is(err, test.reason) || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := pin("m", "1", 9999); err != nil {
		t.Errorf("more than there are: %v", err)
	}
}

func TestTheStatusSaysOnHowManyDevicesPinnedWeightsAre(t *testing.T) {
	_, log := soloCoordinator(t, nil, serving...)
	log.raise(t)
	live := liveWorkers{
		"a": {Devices: []*controlpb.DeviceLive{{ResidentIds: []uint64{1, 2}}, {ResidentIds: []uint64{2}}}},
		"b": {Devices: []*controlpb.DeviceLive{{ResidentIds: []uint64{1}}}},
	}
	status := func(live liveWorkers) (now *uint32) {
		log.replica.Read(func(s *fsm.State) { now = modelStatus(s, s.Model(1), live).PinnedNow })
		return now
	}
	if now := status(live); now != nil {
		t.Errorf("unpinned: %d", *now)
	}
	log.pin(t, 3)
	if now := status(live); now == nil || *now != 2 {
		t.Errorf("pinned: %v", now)
	}
	if now := status(nil); now != nil {
		t.Errorf("when the leader was not asked: %d", *now)
	}
}
