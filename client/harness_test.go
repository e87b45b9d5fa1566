package client_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

// fake is a controller that does what a test tells it to.
type fake struct {
	controlpb.UnimplementedControlServer
	inferencepb.UnimplementedGRPCInferenceServiceServer
	name   string
	net    *testnet.Network
	links  *link.Server
	server *grpc.Server
	served sync.WaitGroup

	mu       sync.Mutex
	requests []*exchangepb.Envelope
	loads    []string
	// answer makes the answer to a request; nil: there is none.
	answer func(*exchangepb.Envelope) *exchangepb.Envelope
	load   func(context.Context) (*controlpb.LoadModelResponse, error)
	watch  func(controlpb.Control_WatchStartupServer) error
}

// start runs a fake controller on host name until the test ends.
func start(t *testing.T, n *testnet.Network, name string) *fake {
	f := &fake{name: name, net: n, answer: echo}
	f.links = link.NewServer(f, link.Options{Name: name}, 4, 1<<20)
	f.server = rpc.NewServer(64 << 20)
	exchangepb.RegisterExchangeServer(f.server, f.links)
	controlpb.RegisterControlServer(f.server, f)
	inferencepb.RegisterGRPCInferenceServiceServer(f.server, f)
	l, err := n.Host(name).Listen(name + ":1")
	if err != nil {
		t.Fatal(err)
	}
	f.served.Go(func() { _ = f.server.Serve(l) })
	t.Cleanup(f.stop)
	return f
}

// stop ends the controller as a crash would.
func (f *fake) stop() {
	f.net.Kill(f.name)
	f.server.Stop()
	f.links.Close()
	f.served.Wait()
}

// echo answers with the payload's model name.
func echo(e *exchangepb.Envelope) *exchangepb.Envelope {
	request := &inferencepb.ModelInferRequest{}
	if err := proto.Unmarshal(e.Payload, request); err != nil {
		panic(err)
	}
	payload, err := proto.Marshal(&inferencepb.ModelInferResponse{ModelName: request.ModelName})
	if err != nil {
		panic(err)
	}
	return &exchangepb.Envelope{Payload: payload, Answer: &exchangepb.Answer{Worker: "w1"}}
}

func (f *fake) Handle(_ context.Context, request *exchangepb.Envelope, reply func(*exchangepb.Envelope)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, request)
	if answer := f.answer(request); answer != nil {
		reply(answer)
	}
}

// seen is what has arrived here.
func (f *fake) seen() []*exchangepb.Envelope {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// wanted are the request ids of the loads that have arrived here.
func (f *fake) wanted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loads
}

func (f *fake) LoadModel(ctx context.Context, r *controlpb.LoadModelRequest) (*controlpb.LoadModelResponse, error) {
	f.mu.Lock()
	f.loads = append(f.loads, r.RequestId)
	f.mu.Unlock()
	return f.load(ctx)
}

func (f *fake) WatchStartup(_ *controlpb.StartupRequest, s controlpb.Control_WatchStartupServer) error {
	return f.watch(s)
}

func (f *fake) ModelMetadata(context.Context, *inferencepb.ModelMetadataRequest) (*inferencepb.ModelMetadataResponse, error) {
	return &inferencepb.ModelMetadataResponse{Name: f.name}, nil
}

// dialled makes a client that knows the named controllers.
func dialled(t *testing.T, n *testnet.Network, names ...string) *client.Client {
	var addresses []string
	for _, name := range names {
		addresses = append(addresses, name+":1")
	}
	c, err := client.New(client.Options{Inference: addresses, Control: addresses, Dial: n.Host("client").Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// within is a context of the test that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// infer makes one request and fails the test if it fails.
func infer(t *testing.T, c *client.Client, d time.Duration) {
	t.Helper()
	response, answer, err := c.Infer(within(t, d), &inferencepb.ModelInferRequest{ModelName: "m"})
	if err != nil {
		t.Error(err)
	} else if response.ModelName != "m" || answer.Worker != "w1" {
		t.Errorf("answer %v, %v", response, answer)
	}
}

// bubble runs a test in virtual time on a network of its own.
func bubble(t *testing.T, test func(*testing.T, *testnet.Network)) {
	synctest.Test(t, func(t *testing.T) { test(t, testnet.New()) })
}
