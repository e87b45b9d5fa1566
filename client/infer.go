package client

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// frameOverhead is room in a message for what surrounds the payload.
const frameOverhead = 4 << 10

// Infer runs one request, and returns the response with what the cluster tells
// about it: the worker, and the time of each stage. The deadline is that of
// ctx; without one the model's objective or the controllers' default holds.
//
// When the controller dies or leaves with the request, the request is sent
// again to the next one, until ctx ends. Requests that the cluster refuses are
// not repeated.
func (c *Client) Infer(ctx context.Context, request *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, *exchangepb.Answer, error) {
	payload, err := proto.Marshal(request)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "the request can't be serialised: %v", err)
	}
	if len(payload)+frameOverhead > c.options.MaxMessage {
		return nil, nil, errs.New(errs.Invalid,
			"the request has %d bytes, and a message may have %d; send fewer rows, or raise inference.max_message and the client's MaxMessage",
			len(payload), c.options.MaxMessage)
	}
	envelope, err := c.exchange(ctx, payload)
	if err != nil {
		return nil, envelope.GetAnswer(), err
	}
	response := &inferencepb.ModelInferResponse{}
	if err := proto.Unmarshal(envelope.Payload, response); err != nil {
		return nil, envelope.Answer, errs.Maybe(errs.Internal, "the answer can't be read: %v", err)
	}
	return response, envelope.Answer, nil
}

// exchange sends a payload until it is answered. An answer that is an error
// comes with that error.
func (c *Client) exchange(ctx context.Context, payload []byte) (*exchangepb.Envelope, error) {
	id, since := rand.Text(), time.Now()
	var last error
	maybe := false // an earlier attempt may have been executed
	for attempt := uint32(1); ; attempt++ {
		if attempt > 2 {
			// Once at once, then not in a tight loop.
			pause(ctx, retryPause)
		}
		s, err := c.sessions.hold(ctx)
		if err != nil {
			if e, ok := errors.AsType[*errs.Error](err); ok {
				return nil, e
			}
			if why := c.sessions.why(); why != nil {
				last = why
			}
			return nil, ended(ctx, since, attempt > 1, last)
		}
		// Each attempt has an envelope of its own: the link may still hold the
		// one before.
		answer, err := s.link.Call(ctx, &exchangepb.Envelope{RequestId: id, Attempt: attempt, Payload: payload,
			Header: &exchangepb.Header{Tenant: c.options.Tenant}})
		if err == nil {
			err = grpcerr.FromAnswer(answer.Answer)
		}
		if err != nil && lost(err) {
			c.sessions.retire(s)
			last = err
			maybe = maybe || errs.From(err).Execution != errs.NotExecuted
		}
		c.sessions.release(s)
		switch {
		case err == nil:
			return answer, nil
		case answer == nil && ctx.Err() != nil:
			return nil, ended(ctx, since, true, last)
		case !lost(err) || ctx.Err() != nil:
			e := *errs.From(err)
			if maybe && e.Execution == errs.NotExecuted {
				e.Execution = errs.MaybeExecuted
			}
			return answer, &e
		}
	}
}

// ModelMetadata describes the inputs and outputs of a model that has been
// loaded. An empty version means the newest.
func (c *Client) ModelMetadata(ctx context.Context, name, version string) (*inferencepb.ModelMetadataResponse, error) {
	var answer *inferencepb.ModelMetadataResponse
	err := c.inference.call(ctx, patience, func(ctx context.Context, conn *rpc.Conn) (err error) {
		answer, err = inferencepb.NewGRPCInferenceServiceClient(conn).
			ModelMetadata(ctx, &inferencepb.ModelMetadataRequest{Name: name, Version: version})
		return err
	})
	return answer, err
}
