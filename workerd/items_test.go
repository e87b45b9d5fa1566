package workerd

import (
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

func payloadOf(request string, bytes int) *item {
	return &item{key: itemKey{request, 1}, arrived: true, bytes: bytes}
}

func batchOf(requests ...string) []*sessionpb.BatchItem {
	var batch []*sessionpb.BatchItem
	for _, r := range requests {
		batch = append(batch, &sessionpb.BatchItem{RequestId: r, Attempt: 1, Rows: 1})
	}
	return batch
}

func TestIntakeJoinsInAnyOrder(t *testing.T) {
	in := newIntake(100)
	in.arrive(payloadOf("early", 10), 0)
	j := testJob(1, 0, 0, 0)
	if err := in.claim(j, batchOf("early", "late")); err != nil {
		t.Fatal(err)
	}
	if complete(j.items) {
		t.Error("complete without the late payload")
	}
	if in.arrive(payloadOf("other", 10), 0) != nil {
		t.Error("a payload that nobody waits for found a job")
	}
	if in.arrive(payloadOf("late", 10), 0) != j || !complete(j.items) {
		t.Error("the late payload did not complete its job")
	}
	if in.arrive(payloadOf("late", 10), 0) != nil {
		t.Error("a second payload was taken")
	}
	in.forget(j)
	if len(in.items) != 1 || in.strayBytes != 10 {
		t.Errorf("%d items and %d stray bytes left, want only the stray one", len(in.items), in.strayBytes)
	}
}

func TestIntakeRefusesARequestInTwoBatches(t *testing.T) {
	in := newIntake(100)
	if err := in.claim(testJob(1, 0, 0, 0), batchOf("a", "b")); err != nil {
		t.Fatal(err)
	}
	j := testJob(2, 0, 0, 0)
	for _, batch := range [][]*sessionpb.BatchItem{batchOf("c", "a"), batchOf("c", "c")} {
		if err := in.claim(j, batch); codeOf(err) != sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT {
			t.Errorf("claim: %v", err)
		}
	}
	if len(j.items) != 0 || len(in.items) != 2 {
		t.Errorf("a refused batch left something behind: %v", in.items)
	}
}

func TestIntakeDropsStrayPayloads(t *testing.T) {
	in := newIntake(100)
	in.arrive(payloadOf("old", 40), 0)
	in.arrive(payloadOf("claimed", 40), 1)
	j := testJob(1, 0, 0, 0)
	in.claim(j, batchOf("claimed"))
	in.arrive(payloadOf("young", 50), int64(strayFor)-1)
	if in.strayBytes != 90 {
		t.Errorf("%d stray bytes, want 90", in.strayBytes)
	}
	in.expire(int64(strayFor)) // old is too old
	if _, there := in.items[itemKey{"old", 1}]; there || in.strayBytes != 50 {
		t.Errorf("%d stray bytes, want 50", in.strayBytes)
	}
	in.arrive(payloadOf("large", 60), int64(strayFor)) // young is too much
	if _, there := in.items[itemKey{"young", 1}]; there || in.strayBytes != 60 {
		t.Errorf("%d stray bytes, want 60", in.strayBytes)
	}
	in.expire(int64(time.Hour))
	if in.strays.Len() != 0 || in.strayBytes != 0 || !complete(j.items) || len(in.items) != 1 {
		t.Errorf("%d strays, %d bytes, %d items left", in.strays.Len(), in.strayBytes, len(in.items))
	}
	in.arrive(payloadOf("cancelled", 10), 0)
	in.cancel(itemKey{"cancelled", 1})
	if in.strays.Len() != 0 || in.strayBytes != 0 {
		t.Error("a cancelled payload stays")
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	it := decode(&exchangepb.Envelope{RequestId: "r", Attempt: 2, Payload: []byte{0xff}})
	if it.key != (itemKey{"r", 2}) || it.err == nil || !strings.Contains(it.err.Error(), "ModelInferRequest") {
		t.Errorf("%+v", it)
	}
}
