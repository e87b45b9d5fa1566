package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/scheduler"
)

// Otherwise their pages would be given away twice.
func TestWeightsThatLoadWhenASessionOpensCountAsResident(t *testing.T) {
	record := &logpb.Worker{Name: "w", Devices: []*logpb.Device{{Index: 0, Pages: 10}, {Index: 1, Pages: 10}}}
	got := schedulerDevices(record, &sessionpb.Report{Devices: []*sessionpb.DeviceState{
		{Index: 1, Resident: []*sessionpb.ResidentModel{{ModelId: 1, Pages: 3}, {ModelId: 2, Pages: 4, Loading: true}}},
	}})
	want := [][]scheduler.Resident{nil, {{Model: 1, Pages: 3}, {Model: 2, Pages: 4}}}
	for i, d := range got {
		if diff := cmp.Diff(want[i], d.Resident); diff != "" {
			t.Errorf("device %d:\n%s", i, diff)
		}
	}
}
