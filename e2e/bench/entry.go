package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// ErrWrong is an answer that is not the model's.
var ErrWrong = errors.New("the answer is wrong")

// Entry is a way into the cluster. Infer's degraded says that the answer was
// marked so.
type Entry struct {
	Name  string
	Infer func(context.Context, *inferencepb.ModelInferRequest) (answer *inferencepb.ModelInferResponse, degraded bool, err error)
	Close func() error
}

// Unary is an entry for clients of the Open Inference Protocol.
func Unary(p *devcluster.Process) (Entry, error) {
	conn, err := rpc.Connect(p.Addresses["inference"], rpc.DialTCP, 4<<20)
	if err != nil {
		return Entry{}, err
	}
	service := inferencepb.NewGRPCInferenceServiceClient(conn)
	return Entry{p.Name + " by ModelInfer", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, bool, error) {
		var trailer metadata.MD
		answer, err := service.ModelInfer(ctx, r, grpc.Trailer(&trailer))
		return answer, slices.Contains(trailer.Get("orrery-degraded"), "true"), err
	}, conn.Close}, nil
}

// Streamed is an entry by our own client, at the first controller as long as
// that one answers.
func Streamed(controllers ...*devcluster.Process) (Entry, error) {
	o := client.Options{Name: "bench"}
	for _, p := range controllers {
		o.Inference = append(o.Inference, p.Addresses["inference"])
	}
	c, err := client.New(o)
	if err != nil {
		return Entry{}, err
	}
	return Entry{controllers[0].Name + " by our client", func(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, bool, error) {
		response, answer, err := c.Infer(ctx, r)
		return response, answer.GetDegraded(), err
	}, c.Close}, nil
}

// Entries are two at each controller, one of either kind.
func Entries(controllers []*devcluster.Process) (all []Entry, err error) {
	for _, p := range controllers {
		u, err := Unary(p)
		if err != nil {
			return nil, err
		}
		s, err := Streamed(p)
		if err != nil {
			return nil, err
		}
		all = append(all, u, s)
	}
	return all, nil
}

// check compares an answer with what an emulated model makes of the input: its
// hash.
func check(r *inferencepb.ModelInferResponse, input []byte) error {
	want := fnv.New64a()
	want.Write(input)
	if len(r.RawOutputContents) != 1 || len(r.RawOutputContents[0]) < 8 ||
		binary.LittleEndian.Uint64(r.RawOutputContents[0]) != want.Sum64() {
		return fmt.Errorf("%w: %v", ErrWrong, r.RawOutputContents)
	}
	return nil
}
