package fsm

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestInspectSummarisesASnapshot(t *testing.T) {
	l := serving(t)
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "gpu", 7)}})
	l.ok(&logpb.RaiseEpoch{To: 2})
	l.ok(&logpb.RaiseVersion{To: 2})
	r := &Replica{state: l.state}
	var data bytes.Buffer
	index, err := r.WriteSnapshot(&data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "index", index, l.index)
	size := int64(data.Len())
	got, err := Inspect(iotest.HalfReader(bytes.NewReader(data.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "summary", got, Summary{
		Format: 1, Index: l.index, Bytes: size, ClusterID: "c-1", Version: 2, Epoch: 2, Phase: logpb.Phase_PHASE_SERVING,
		Time: time.Unix(0, l.now).UTC(), LastModelID: 1,
		Workers: 2, Models: 1, Holdings: 2, Profiles: 1, Requests: int(l.index), Digest: l.state.Digest(),
	})

	data.Bytes()[40] ^= 1
	if _, err := Inspect(&data); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := r.WriteSnapshot(&sink{limit: 10}); !errors.Is(err, errSink) {
		t.Errorf("a writer that fails: %v", err)
	}
}
