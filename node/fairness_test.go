package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/orrery-project/orrery/proto/inferencepb"
)

// Who floods a model hurts nobody else: the others' requests come first, at any
// controller, by the tenant in the metadata and by the protocol's priority.
func TestAFloodLeavesTheOthersAlone(t *testing.T) {
	const (
		capacity = 8 * 1000 / 28 // rows a second, in batches of 8
		deadline = 200 * time.Millisecond
		seconds  = 2
		flood    = 4 * capacity
		modest   = capacity / 4
	)
	for name, mark := range map[string]func(ctx context.Context, r *inferencepb.ModelInferRequest, modest bool) context.Context{
		"by tenant": func(ctx context.Context, _ *inferencepb.ModelInferRequest, modest bool) context.Context {
			if modest {
				return metadata.AppendToOutgoingContext(ctx, "orrery-tenant", "modest")
			}
			return metadata.AppendToOutgoingContext(ctx, "orrery-tenant", "greedy")
		},
		"by priority": func(ctx context.Context, r *inferencepb.ModelInferRequest, modest bool) context.Context {
			if modest {
				r.Parameters["priority"] = &inferencepb.InferParameter{ParameterChoice: &inferencepb.InferParameter_Uint64Param{Uint64Param: 1}}
			}
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTunedBubble(t, 0, quick, func(t *testing.T, c *cluster) {
				c.serveTable(map[string]string{"m": "10,1,8,11,17,28"})
				var entries []inferencepb.GRPCInferenceServiceClient
				for _, name := range controllerNames {
					entries = append(entries, c.inference(name))
				}
				var mu sync.Mutex
				var wait sync.WaitGroup
				asked, good := map[bool]int{}, map[bool]int{}
				send := func(i int, modest, counts bool) {
					wait.Go(func() {
						r := within(image("m", i), deadline)
						err := ask(mark(context.Background(), r, modest), entries[i%3], r)
						mu.Lock()
						defer mu.Unlock()
						if counts {
							asked[modest]++
							if err == nil {
								good[modest]++
							}
						}
					})
				}
				ticker := time.NewTicker(time.Second / (flood + modest))
				defer ticker.Stop()
				for i := range (flood + modest) * seconds {
					<-ticker.C
					// The scheduler has to see the flood before it knows whose it is.
					send(i, i%((flood+modest)/modest) == 0, i > (flood+modest)/4)
				}
				wait.Wait()
				t.Logf("asked for %v, in time %v", asked, good)
				if share := float64(good[true]) / float64(asked[true]); share < 0.97 || asked[true] < modest {
					t.Errorf("%d of %d modest requests were answered in time", good[true], asked[true])
				}
				if good[false] < capacity*seconds*4/10 || good[false] > asked[false]/2 {
					t.Errorf("%d of %d of the flood were answered: either it was none, or it got nothing", good[false], asked[false])
				}
			})
		})
	}
}
