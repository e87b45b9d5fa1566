package fsm

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// pinnable serves version 1 of a model, id 1, on two workers, admits late loads, and may pin.
func pinnable(t *testing.T) *log {
	l := admitting(t)
	l.ok(&logpb.RaiseVersion{To: 5})
	return l
}

func (l *log) pinned(id uint64) uint32 { return l.state.Model(id).GetPinned() }

func TestAPinIsKeptUntilItIsChanged(t *testing.T) {
	l := pinnable(t)
	unpinned := records(l.state)
	equal(t, "ids", l.ok(&logpb.PinModel{Name: "m", Devices: 2}).GetModelIds(), []uint64{1})
	equal(t, "pinned", l.pinned(1), uint32(2))
	equal(t, "in a snapshot", copied(t, l.state).Model(1).GetPinned(), uint32(2))
	equal(t, "ids, once more", l.ok(&logpb.PinModel{Name: "m", Devices: 2}).GetModelIds(), []uint64{1})
	l.ok(&logpb.PinModel{Name: "m", Devices: maxPinned})
	l.refused(&logpb.PinModel{Name: "m", Devices: maxPinned + 1}, logpb.Reason_REASON_INVALID, "10001 devices", "at most to 10000")
	l.refused(&logpb.PinModel{Name: "x", Devices: 1}, logpb.Reason_REASON_UNKNOWN_MODEL, `no model "x"`)
	l.refused(&logpb.PinModel{Name: "m", Version: "2", Devices: 1}, logpb.Reason_REASON_UNKNOWN_MODEL, `version "2" of model "m"`)
	equal(t, "after what was refused", l.pinned(1), uint32(maxPinned))

	// A record without a pin is, byte for byte, what it was before there were any.
	l.ok(&logpb.PinModel{Name: "m"})
	equal(t, "records", appendState(nil, records(l.state)), appendState(nil, unpinned))

	l.ok(&logpb.PinModel{Name: "m", Devices: 1})
	l.ok(&logpb.UnloadModel{Name: "m"})
	id := l.ok(&logpb.LoadModel{Name: "m", Source: "a.onnx"}).GetModelIds()[0]
	equal(t, "loaded again", l.pinned(id), uint32(0))
}

func TestARetryOfAPinDoesNotUndoALaterOne(t *testing.T) {
	l := pinnable(t)
	pin := l.command(&logpb.PinModel{Name: "m", Devices: 2})
	first := proto.CloneOf(l.apply(pin))
	l.ok(&logpb.PinModel{Name: "m"})
	equal(t, "the retry's result", l.apply(pin), first)
	equal(t, "pinned", l.pinned(1), uint32(0))
}

func TestPinsOfVersions(t *testing.T) {
	l := pinnable(t)
	l.ok(&logpb.LoadModel{Name: "m", Version: "3", Source: "b"})
	l.ok(&logpb.LoadModel{Name: "m", Version: "2", Source: "c"})
	equal(t, "all of them", l.ok(&logpb.PinModel{Name: "m", Devices: 1}).GetModelIds(), []uint64{1, 2, 3})
	equal(t, "one", l.ok(&logpb.PinModel{Name: "m", Version: "3", Devices: 4}).GetModelIds(), []uint64{2})
	equal(t, "pins", []uint32{l.pinned(1), l.pinned(2), l.pinned(3)}, []uint32{1, 4, 1})
}

func TestAReplacementInheritsThePin(t *testing.T) {
	l := pinnable(t)
	l.ok(&logpb.PinModel{Name: "m", Devices: 2})
	l.ok(&logpb.LoadModel{Name: "m", Source: "b", Replace: true})
	equal(t, "from the start, so that its weights are there when it takes over", l.pinned(2), uint32(2))
	l.ok(&logpb.PinModel{Name: "m", Devices: 3})
	equal(t, "both follow", []uint32{l.pinned(1), l.pinned(2)}, []uint32{3, 3})

	l.ok(&logpb.ReplaceModel{ModelId: 2})
	equal(t, "the replaced one gives its pages back", l.pinned(1), uint32(0))
	equal(t, "pinned", l.pinned(2), uint32(3))
	equal(t, "who retires is not pinned again", l.ok(&logpb.PinModel{Name: "m", Devices: 1}).GetModelIds(), []uint64{2})
	l.refused(&logpb.PinModel{Name: "m", Version: "1", Devices: 1}, logpb.Reason_REASON_UNKNOWN_MODEL)

	l.ok(&logpb.LoadModel{Name: "m", Version: "9", Source: "b"})
	equal(t, "a version beside it inherits nothing", l.pinned(3), uint32(0))
}

// A cluster in which one controller is older refuses pins, and its replicas agree on that.
func TestReleasesOfAMixedClusterAgreeOnPins(t *testing.T) {
	l := admitting(t)
	l.refused(&logpb.PinModel{Name: "m", Devices: 1}, logpb.Reason_REASON_VERSION, "needs cluster version 5", "update all controllers first")
	taken := l.ok(&logpb.TakeDigest{})
	older, newer := NewReplica(Options{Version: 4}), NewReplica(Options{})
	for _, r := range []*Replica{older, newer} {
		follow(t, r, l, 1)
		got, ok := r.DigestAt(taken.GetIndex())
		equal(t, "known", ok, true)
		equal(t, "digest", got, taken.GetDigest())
	}
}

func TestARestoredSnapshotBringsItsPinsBack(t *testing.T) {
	l := pinnable(t)
	l.ok(&logpb.PinModel{Name: "m", Devices: 2})
	snapshot := copied(t, l.state)
	l.ok(&logpb.PinModel{Name: "m"})
	equal(t, "pinned", succeed(t, snapshot, l.state, false).Model(1).GetPinned(), uint32(2))
}
