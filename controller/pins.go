package controller

import (
	"context"
	"slices"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// PinModel has a model's weights stay on devices, or ends that. The leader's
// scheduler follows when the change is committed.
func (s *controlService) PinModel(ctx context.Context, r *controlpb.PinModelRequest) (*controlpb.PinModelResponse, error) {
	if r.Name == "" {
		return nil, grpcerr.Status(errs.New(errs.Invalid, "the request names no model; `orrery model list` shows the models"))
	}
	result, err := s.c.commit(ctx, requested(r.RequestId, time.Duration(r.RequestedAgoNs), &logpb.Command{Body: &logpb.Command_PinModel{
		PinModel: &logpb.PinModel{Name: r.Name, Version: r.Version, Devices: r.Devices},
	}}))
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	_ = s.c.options.Replica.WaitIndex(ctx, result.Index)
	return &controlpb.PinModelResponse{ModelIds: result.ModelIds}, nil
}

// devicesWith is how many devices have a model's weights right now.
func (l liveWorkers) devicesWith(id uint64) (n uint32) {
	for _, w := range l {
		for _, d := range w.Devices {
			if slices.Contains(d.ResidentIds, id) {
				n++
			}
		}
	}
	return n
}
