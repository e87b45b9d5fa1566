package workerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/internal/oip"
	"github.com/orrery-project/orrery/internal/tensor"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/sessionpb"
	"github.com/orrery-project/orrery/workerd/engine"
)

const (
	// payloadPatience is how long an Infer without a latest start waits for its payloads.
	payloadPatience = 5 * time.Second
	// payloadMargin is how long before its latest start a batch stops waiting for payloads: what is there shall still
	// start in time, and timers ring late.
	payloadMargin = time.Millisecond
)

// part is one request's share of a batch.
type part struct {
	item   *item
	result *sessionpb.ItemResult
	rows   int
	class  string
	inputs []tensor.Tensor
}

// queueInfer queues an Infer action of a session. The lock is held.
func (d *device) queueInfer(s *session, j *job) error {
	batch := j.action.GetInfer().GetItems()
	if len(batch) == 0 {
		return refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT, "the batch has no items")
	}
	if err := s.intake.claim(j, batch); err != nil {
		return err
	}
	j.patience = j.received + int64(payloadPatience)
	if j.latest != never {
		window := j.latest - max(j.received, j.earliest)
		j.patience = j.latest - min(int64(payloadMargin), window/2)
	}
	j.ready = func(now int64) bool {
		return (complete(j.items) || now >= j.patience) && !d.awaits(j.action.GetModelId())
	}
	j.run = d.infer
	return d.inference.submit(j)
}

// infer carries out an Infer action. The outputs are on their way when it returns. When the whole batch fails, the result
// still tells the items that were at fault from those that were not.
func (d *device) infer(ctx context.Context, j *job) (*sessionpb.Result, error) {
	m, w, err := d.beginInfer(j)
	if err != nil {
		return nil, err
	}
	parts, runnable, batch, err := assemble(m, j.items)
	result := &sessionpb.Result{Items: results(parts)}
	if err == nil && len(runnable) == 0 {
		return result, &refusal{parts[0].result.Code, "no item of the batch can run"}
	}
	var outputs []tensor.Tensor
	if err == nil {
		start := d.clock()
		outputs, err = runBatch(ctx, w, batch)
		result.EngineNs = d.clock() - start
		d.note(m.id, batch.Rows, result.EngineNs)
	}
	if err == nil {
		err = d.deliver(j, m, runnable, outputs)
	}
	if err != nil {
		for _, p := range runnable {
			p.result.Code, p.result.Message = codeOf(err), err.Error()
		}
	}
	return result, err
}

// beginInfer finds what the batch runs on. From now on its items can't be cancelled and no payload is waited for.
func (d *device) beginInfer(j *job) (*model, engine.Weights, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j.from.begin(j)
	id := j.action.GetModelId()
	m, err := d.model(id)
	if err != nil {
		return nil, nil, err
	}
	w := d.weights[id]
	if w == nil {
		return nil, nil, refusef(sessionpb.ResultCode_RESULT_CODE_WEIGHTS_NOT_PRESENT,
			"the weights of model %d are not on device %d", id, d.index)
	}
	return m, w, nil
}

// assemble reads all items, says of each that can't run why, and joins the others.
func assemble(m *model, items []*item) (parts, runnable []*part, batch engine.Batch, err error) {
	batch.Parameters = make(map[string]string)
	var inputs [][]tensor.Tensor
	for _, it := range items {
		p := &part{item: it, result: &sessionpb.ItemResult{RequestId: it.key.request, Attempt: it.key.attempt}}
		parts = append(parts, p)
		err := contain(func() error { return p.read(m) })
		if err == nil && len(runnable) > 0 && p.class != runnable[0].class {
			err = fmt.Errorf("its shape class %q is not that of its batch, %q", p.class, runnable[0].class)
		}
		if err != nil {
			p.result.Code, p.result.Message = itemCode(err), err.Error()
			continue
		}
		runnable = append(runnable, p)
		inputs = append(inputs, p.inputs)
		batch.Rows += p.rows
		maps.Copy(batch.Parameters, oip.CustomParameters(it.request))
	}
	switch most := maxRows(m); {
	case batch.Rows > most:
		return parts, runnable, batch, refusef(sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT,
			"the batch has %d rows, model %d runs %d at most", batch.Rows, m.id, most)
	case len(runnable) > 0:
		batch.Inputs, err = oip.Concat(inputs)
	}
	return parts, runnable, batch, err
}

// read checks a request against the model. The leader has done so before; a worker relies on nobody.
func (p *part) read(m *model) error {
	it := p.item
	switch {
	case it.cancelled:
		return errCancelled
	case !it.arrived:
		return errMissing
	case it.err != nil:
		return it.err
	}
	shape, err := oip.Check(it.request, m.info.Signature, maxRows(m))
	if err != nil {
		return err
	}
	if shape.Rows != it.rows {
		return fmt.Errorf("the request has %d rows, the action says %d", shape.Rows, it.rows)
	}
	p.rows, p.class = shape.Rows, shape.Class
	p.inputs, err = oip.Inputs(it.request, m.info.Signature)
	return err
}

// itemCode is the code of an item that is left out: unless it was refused, such as for having been cancelled, its input is
// at fault.
func itemCode(err error) sessionpb.ResultCode {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	return sessionpb.ResultCode_RESULT_CODE_INVALID_INPUT
}

// maxRows is the largest batch of a model.
func maxRows(m *model) int {
	return m.info.ProfileRows[len(m.info.ProfileRows)-1]
}

func runBatch(ctx context.Context, w engine.Weights, b engine.Batch) (outputs []tensor.Tensor, err error) {
	err = contain(func() (err error) {
		outputs, err = w.Run(ctx, b)
		return err
	})
	return outputs, err
}

// deliver cuts the outputs into answers and sends them. An answer that can't be built fails its item only.
func (d *device) deliver(j *job, m *model, runnable []*part, outputs []tensor.Tensor) error {
	rows := make([]int, len(runnable))
	for i, p := range runnable {
		rows[i] = p.rows
	}
	shares, err := oip.Split(outputs, rows)
	if err != nil {
		return fmt.Errorf("outputs of engine %s: %w", m.record.GetEngine(), err)
	}
	var envelopes []*exchangepb.Envelope
	for i, p := range runnable {
		var payload []byte
		err := contain(func() (err error) {
			payload, err = answerTo(p.item.request, m, shares[i])
			return err
		})
		if err != nil {
			p.result.Code, p.result.Message = sessionpb.ResultCode_RESULT_CODE_ENGINE_FAILED, err.Error()
			continue
		}
		envelopes = append(envelopes, &exchangepb.Envelope{
			RequestId: p.item.key.request, Attempt: p.item.key.attempt, Payload: payload,
		})
	}
	if !d.abandoned(j) {
		j.from.deliver(envelopes)
	}
	return nil
}

// abandoned says whether nobody waits for a job any more.
func (d *device) abandoned(j *job) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return j.dropped
}

func answerTo(req *inferencepb.ModelInferRequest, m *model, outputs []tensor.Tensor) ([]byte, error) {
	var parameters map[string]*inferencepb.InferParameter
	if m.info.Emulated {
		parameters = map[string]*inferencepb.InferParameter{
			"emulated": {ParameterChoice: &inferencepb.InferParameter_BoolParam{BoolParam: true}},
		}
	}
	response, err := oip.Response(req, m.name, m.version, outputs, parameters)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(response)
}

func results(parts []*part) []*sessionpb.ItemResult {
	list := make([]*sessionpb.ItemResult, len(parts))
	for i, p := range parts {
		list[i] = p.result
	}
	return list
}
