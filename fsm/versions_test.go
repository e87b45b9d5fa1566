package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// raised is a cluster in which this release's newest commands may be proposed.
func raised(t testing.TB) *log {
	l := newCluster(t)
	l.ok(&logpb.RaiseVersion{To: Version})
	return l
}

func TestEveryKindOfCommandHasAVersion(t *testing.T) {
	later := map[string]uint32{"check_digest": 2, "set_model_blame": 3, "reopen_startup": 4, "put_device_checks": 4, "replace_model": 4, "pin_model": 5}
	fields := (&logpb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		cmd := &logpb.Command{}
		cmd.ProtoReflect().Set(fields.Get(i), cmd.ProtoReflect().NewField(fields.Get(i)))
		name := string(fields.Get(i).Name())
		equal(t, name, NeededVersion(cmd), max(later[name], 1))
	}
	equal(t, "an unknown one", NeededVersion(&logpb.Command{}), uint32(0))
}

func TestAClusterStartsAtTheFirstVersionAndRises(t *testing.T) {
	l := newLog(t)
	l.refused(&logpb.RaiseVersion{To: Version}, logpb.Reason_REASON_INVALID, "not bootstrapped")
	l.ok(&logpb.InitCluster{ClusterId: "c-1"})
	equal(t, "version", l.state.Cluster().GetVersion(), uint32(1))
	l.refused(&logpb.RaiseVersion{To: 1}, logpb.Reason_REASON_INVALID, "only rises")
	l.refused(&logpb.RaiseVersion{}, logpb.Reason_REASON_INVALID, "can't go to 0")
	raise := l.command(&logpb.RaiseVersion{To: 2})
	first := proto.CloneOf(l.apply(proto.CloneOf(raise)))
	equal(t, "reason", first.GetReason(), logpb.Reason_REASON_NONE)
	equal(t, "version", l.state.Cluster().GetVersion(), uint32(2))
	equal(t, "a retry", l.apply(raise), first)
	l.refused(&logpb.RaiseVersion{To: 1}, logpb.Reason_REASON_INVALID, "is at version 2")
}

func TestAReplicaThatCannotFollowANewVersionStops(t *testing.T) {
	for name, c := range map[string]struct{ release, to uint32 }{
		"a version that nobody has": {Version, Version + 1},
		"an older release":          {1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newCluster(t)
			l.state.release = c.release
			before, index := l.state.Digest(), l.state.Index()
			raise := l.command(&logpb.RaiseVersion{To: c.to})
			raise.ProposedUnixNs += int64(time.Second)
			_, err := l.state.Apply(l.index+1, raise)
			if !errors.Is(err, ErrOutdated) || !strings.Contains(err.Error(), "update this replica") {
				t.Fatalf("got %v", err)
			}
			equal(t, "digest", l.state.Digest(), before)
			equal(t, "index", l.state.Index(), index)
			// Refusals come first: they are equal on all replicas.
			raise.RequestId = ""
			equal(t, "without a request id", l.apply(raise).GetReason(), logpb.Reason_REASON_INVALID)
		})
	}
}

func TestANewKindOfCommandNeedsItsVersion(t *testing.T) {
	l := newCluster(t)
	digest := l.ok(&logpb.TakeDigest{})
	check := &logpb.CheckDigest{Index: digest.GetIndex(), Digest: digest.GetDigest()}
	l.refused(check, logpb.Reason_REASON_VERSION, "needs cluster version 2")
	understated := l.command(check)
	understated.Version = 1
	equal(t, "with a version that is too low", l.apply(understated).GetReason(), logpb.Reason_REASON_INVALID)
	l.ok(&logpb.RaiseVersion{To: 2})
	understated = l.command(check)
	understated.Version = 0
	equal(t, "with no version", l.apply(understated).GetReason(), logpb.Reason_REASON_INVALID)
	l.ok(check)
}

func TestTheFormOfACheckedDigest(t *testing.T) {
	l := raised(t)
	sum := strings.Repeat("ab", 32)
	l.refused(&logpb.CheckDigest{Index: 1, Digest: "ab"}, logpb.Reason_REASON_INVALID, `"ab" is not`)
	l.refused(&logpb.CheckDigest{Index: 1, Digest: strings.Repeat("xy", 32)}, logpb.Reason_REASON_INVALID, "hex digits")
	l.refused(&logpb.CheckDigest{Digest: sum}, logpb.Reason_REASON_INVALID, "of index 0")
	l.refused(&logpb.CheckDigest{Index: l.index + 1, Digest: sum}, logpb.Reason_REASON_INVALID, "not before the command's own")
	before := l.state.Digest()
	l.ok(&logpb.CheckDigest{Index: l.index, Digest: sum})
	l.now -= int64(time.Millisecond) // so that only the command could have left something
	if remembered := len(l.state.requests.rows); remembered != 2 || l.state.now <= start {
		t.Errorf("%d requests are remembered", remembered)
	}
	now := l.state.now
	l.state.now = now - int64(time.Millisecond)
	equal(t, "digest but for the time", l.state.Digest(), before)
}

// A cluster of three releases: replicas that act as the first one see what a real one of that release would.
func TestAnOlderReleaseInAMixedCluster(t *testing.T) {
	var faults []error
	older := NewReplica(Options{Version: 1, OnFault: func(err error) { faults = append(faults, err) }})
	equal(t, "version", older.Version(), uint32(1))
	newer := NewReplica(Options{Version: Version + 7})
	equal(t, "version", newer.Version(), uint32(Version))

	l := serving(t)
	l.do(&logpb.CheckDigest{Index: 1, Digest: strings.Repeat("ab", 32)})
	l.ok(&logpb.TakeDigest{})
	follow(t, older, l, 1)
	follow(t, newer, l, 1)
	theirs, _ := newer.DigestAt(l.index)
	ours, ok := older.DigestAt(l.index)
	if !ok || ours != theirs {
		t.Errorf("the digests differ: %s, %s", ours, theirs)
	}

	snapshot := func() io.ReadCloser {
		var data bytes.Buffer
		if _, err := newer.WriteSnapshot(&data); err != nil {
			t.Fatal(err)
		}
		return io.NopCloser(&data)
	}
	if err := older.Restore(snapshot()); err != nil {
		t.Fatal(err)
	}
	at := l.index
	l.ok(&logpb.RaiseVersion{To: 2})
	follow(t, newer, l, at+1)
	if err := older.Restore(snapshot()); !errors.Is(err, ErrBadSnapshot) || !strings.Contains(err.Error(), "at version 2, this release applies up to 1") {
		t.Errorf("a snapshot from after it: %v", err)
	}
	if err, _ := follow(t, older, l, at+1)[0].(error); !errors.Is(err, ErrOutdated) || len(faults) != 1 {
		t.Errorf("got %v, faults %v", err, faults)
	}

	// A kind that it doesn't know, although the command says that it needs no more than the first version.
	older = NewReplica(Options{Version: 1, OnFault: func(error) {}})
	l = newCluster(t)
	understated := l.command(&logpb.CheckDigest{Index: 1, Digest: strings.Repeat("ab", 32)})
	understated.Version = 1
	l.apply(understated)
	if err, _ := follow(t, older, l, 1)[1].(error); !errors.Is(err, ErrUnknownCommand) {
		t.Errorf("got %v", err)
	}
}

// Older releases keep a policy that an old controller has proposed, whatever it says: so must this one, or the replicas
// of a mixed cluster come apart.
func TestReleasesOfAMixedClusterAgreeOnThePolicy(t *testing.T) {
	l := newCluster(t)
	l.ok(&logpb.RaiseVersion{To: 4})
	l.refused(setPolicy("fifo"), logpb.Reason_REASON_VERSION, "needs cluster version 5", "update all controllers first")
	unset := l.ok(&logpb.TakeDigest{})
	ofAnOldOne := l.command(setPolicy("any text at all"))
	ofAnOldOne.Version = 1
	equal(t, "of an old controller", l.apply(ofAnOldOne).GetReason(), logpb.Reason_REASON_NONE)
	equal(t, "kept", l.state.Cluster().GetSettings().GetPolicy(), "any text at all")
	equal(t, "in force", l.state.Policy(), "")
	set := l.ok(&logpb.TakeDigest{})

	older, newer := NewReplica(Options{Version: 4}), NewReplica(Options{})
	follow(t, older, l, 1)
	follow(t, newer, l, 1)
	for name, want := range map[string]*logpb.Result{"none is set": unset, "one is set": set} {
		for _, r := range []*Replica{older, newer} {
			got, ok := r.DigestAt(want.GetIndex())
			equal(t, name, ok, true)
			equal(t, name, got, want.GetDigest())
		}
	}

	l.ok(&logpb.RaiseVersion{To: 5})
	equal(t, "in force", l.state.Policy(), "any text at all")
	l.refused(&logpb.SetSettings{Settings: l.state.Cluster().GetSettings()}, logpb.Reason_REASON_INVALID, "any text at all")
	l.ok(setPolicy("fifo"))
}

// Records that have no policy are, byte for byte, what they were before there was one.
func TestAnUnsetPolicyLeavesNoTrace(t *testing.T) {
	l := raised(t)
	before := records(l.state)
	l.ok(setPolicy("fifo"))
	l.ok(setPolicy(""))
	equal(t, "records", appendState(nil, records(l.state)), appendState(nil, before))
}

func TestThePolicyOfTheSettings(t *testing.T) {
	l := raised(t)
	equal(t, "at first", l.state.Policy(), "")
	for _, name := range []string{"fifo", "shortest_queue", "v2.1-b"} {
		l.ok(setPolicy(name))
		equal(t, "policy", l.state.Policy(), name)
		equal(t, "in a snapshot", copied(t, l.state).Policy(), name)
	}
	for name, bad := range map[string]string{"blanks": "a b", "no name": "-", "too long": strings.Repeat("x", maxNameBytes+1), "a new line": "edf\n"} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			if message := l.do(setPolicy(bad)).GetMessage(); len(message) > 300 {
				t.Errorf("a message of %d bytes", len(message))
			}
			l.refused(setPolicy(bad), logpb.Reason_REASON_INVALID, "policy is", "128")
		})
	}
	equal(t, "after what was refused", l.state.Policy(), "v2.1-b")
	l.ok(setPolicy(""))
	equal(t, "unset", l.state.Policy(), "")
}

func setPolicy(name string) *logpb.SetSettings {
	return &logpb.SetSettings{Settings: &logpb.Settings{Policy: name}}
}
