package node

import (
	"io"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// InspectSnapshot reads a snapshot of the cluster's state to its end, verifies
// it, and says what is in it. The error says what is wrong with it.
func InspectSnapshot(r io.Reader) (*controlpb.SnapshotSummary, error) {
	s, err := fsm.Inspect(r)
	if err != nil {
		return nil, err
	}
	return &controlpb.SnapshotSummary{
		Format: s.Format, Index: s.Index, NowUnixNs: s.Time.UnixNano(),
		Cluster: &logpb.Cluster{Id: s.ClusterID, Epoch: s.Epoch, Version: s.Version, Phase: s.Phase},
		Workers: uint32(s.Workers), Models: uint32(s.Models), Holdings: uint32(s.Holdings), Profiles: uint32(s.Profiles),
		Bytes: uint64(s.Bytes), Digest: s.Digest,
	}, nil
}
