package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// Sources that no worker may take.
const (
	notONNX  = "not-onnx.onnx"
	escaping = "escaping.onnx"
)

// badModelDir is a model directory with our models, a file that is not ONNX,
// and a link that leads out of it, to a model that could be loaded.
func badModelDir(t *testing.T) string {
	t.Helper()
	dir, outside := t.TempDir(), t.TempDir()
	for source, to := range map[string]string{
		mlp: filepath.Join(dir, mlp+".onnx"),
		cnn: filepath.Join(outside, "secret.onnx"),
	} {
		text, err := os.ReadFile(filepath.Join(modelDir, source+".onnx"))
		if err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	junk := bytes.Repeat([]byte("this is no model\n"), 1000)
	if err := os.WriteFile(filepath.Join(dir, notONNX), junk, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret.onnx"), filepath.Join(dir, escaping)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// expectRefusal checks an error of gRPC: its code, its reason, that it says
// truly that nothing was executed, and what a person is told.
func expectRefusal(t *testing.T, err error, code codes.Code, reason errs.Reason, says ...string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code {
		t.Fatalf("%v (%v); want %v", err, st.Code(), code)
	}
	var info *errdetails.ErrorInfo
	for _, d := range st.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	if info.GetReason() != string(reason) || info.GetMetadata()["execution"] != "not executed" || info.GetDomain() != "orrery" {
		t.Errorf("the details of %v are %v; want %s, not executed", err, info, reason)
	}
	for _, s := range says {
		if !strings.Contains(st.Message(), s) {
			t.Errorf("the message does not say %q: %s", s, st.Message())
		}
	}
}

// expectError checks an error of our client likewise.
func expectError(t *testing.T, err error, reason errs.Reason, says ...string) {
	t.Helper()
	e, ok := errors.AsType[*errs.Error](err)
	if !ok || e.Reason != reason || e.Execution != errs.NotExecuted {
		t.Fatalf("%#v; want %s, not executed", err, reason)
	}
	for _, s := range says {
		if !strings.Contains(e.Message, s) {
			t.Errorf("the message does not say %q: %s", s, e.Message)
		}
	}
}

// badLoads asks for models that can't be loaded, before the cluster serves.
func badLoads(t *testing.T, c *cluster) {
	leader := awaitLeader(t, c.Controllers...)
	p := c.without(leader)[1]
	cl := clientOf(t, p)
	for source, says := range map[string]string{
		"../secret.onnx":           `".."`,
		"models/../../secret.onnx": `".."`,
		"/etc/hostname":            "slash",
		"":                         "source",
	} {
		_, err := cl.LoadModel(within(t, callTimeout), &logpb.LoadModel{Name: "bad", Source: source})
		expectError(t, err, errs.Invalid, says)
		_, err = controlpb.NewControlClient(dial(t, p, "control")).LoadModel(within(t, callTimeout),
			&controlpb.LoadModelRequest{Model: &logpb.LoadModel{Name: "bad", Source: source}})
		expectRefusal(t, err, codes.InvalidArgument, errs.Invalid, says)
	}
	t.Run("FileThatEscapes", func(t *testing.T) { failsEverywhere(t, c, cl, "escaping", escaping, escaping) })
	t.Run("FileThatIsMissing", func(t *testing.T) { failsEverywhere(t, c, cl, "missing", "nowhere.onnx", "nowhere.onnx") })
	t.Run("FileThatIsNotONNX", func(t *testing.T) {
		failsEverywhere(t, c, cl, "not-onnx", notONNX, notONNX)
		// By the command line: the same news, and an exit status.
		out := orreryCommand(t, "model", "load", "not-onnx-2", "--source", notONNX, "--control", p.Addresses["control"])
		if out.status != 1 || !strings.Contains(out.stderr, "2 of 2 copies failed to load") {
			t.Errorf("exit status %d, stderr %s", out.status, out.stderr)
		}
		for _, w := range c.Workers {
			if !strings.Contains(out.stdout, w.Name) || !strings.Contains(out.stdout, "failed") || !strings.Contains(out.stdout, notONNX) {
				t.Errorf("stdout does not tell how %s failed: %s", w.Name, out.stdout)
			}
		}
		orreryCommand(t, "model", "unload", "not-onnx-2", "--control", p.Addresses["control"]).expect(t, 0)
	})
}

// failsEverywhere asks for a model that no worker can load, and expects that
// the answer tells of each worker why.
func failsEverywhere(t *testing.T, c *cluster, cl *client.Client, name, source string, says ...string) {
	t.Helper()
	all, err := cl.LoadModel(within(t, serveTimeout), &logpb.LoadModel{Name: name, Source: source})
	if err != nil || len(all) != 1 || len(all[0].Copies) != len(c.Workers) {
		t.Fatalf("the answer is %v, %v", all, err)
	}
	for _, copy := range all[0].Copies {
		if copy.Status != logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			t.Errorf("worker %s: %v", copy.Worker, copy.Status)
		}
		for _, s := range says {
			if !strings.Contains(copy.Error, s) {
				t.Errorf("worker %s does not say %q: %s", copy.Worker, s, copy.Error)
			}
		}
		t.Logf("%s on %s: %s", source, copy.Worker, copy.Error)
	}
	if all[0].Reason == "" || all[0].Advice == "" {
		t.Errorf("the model's status gives no reason or no advice: %v", all[0])
	}
}

// badRequest is one that is refused.
type badRequest struct {
	name    string
	request *inferencepb.ModelInferRequest
	code    codes.Code
	reason  errs.Reason
	says    []string
}

func badRequests(good *inferencepb.ModelInferRequest) []badRequest {
	change := func(f func(*inferencepb.ModelInferRequest)) *inferencepb.ModelInferRequest {
		r := proto.CloneOf(good)
		f(r)
		return r
	}
	invalid := func(name string, f func(*inferencepb.ModelInferRequest), says ...string) badRequest {
		return badRequest{name, change(f), codes.InvalidArgument, errs.Invalid, says}
	}
	return []badRequest{
		{"UnknownModel", change(func(r *inferencepb.ModelInferRequest) { r.ModelName = "nobody" }),
			codes.NotFound, errs.UnknownModel, []string{`"nobody"`, "orrery model list"}},
		{"UnknownVersion", change(func(r *inferencepb.ModelInferRequest) { r.ModelVersion = "7" }),
			codes.NotFound, errs.UnknownModel, []string{`"7"`}},
		{"ModelThatFailedToLoad", change(func(r *inferencepb.ModelInferRequest) { r.ModelName = "not-onnx" }),
			codes.FailedPrecondition, errs.LoadFailed, []string{"not-onnx"}},
		invalid("Shape", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Shape = []int64{1, 14, 56} }, "[1 14 56]", "[-1 28 28]"),
		invalid("NegativeShape", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Shape = []int64{1, -28, -28} }, "-28"),
		invalid("NoRows", func(r *inferencepb.ModelInferRequest) {
			r.Inputs[0].Shape, r.RawInputContents = []int64{0, 28, 28}, [][]byte{{}}
		}, "rows"),
		invalid("TooManyRows", func(r *inferencepb.ModelInferRequest) {
			r.Inputs[0].Shape, r.RawInputContents = []int64{17, 28, 28}, [][]byte{make([]byte, 17*28*28*4)}
		}, "17 rows", "16"),
		invalid("HugeShape", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Shape = []int64{1 << 62, 1 << 62, 28} }, "image"),
		invalid("Type", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Datatype = "INT32" }, "INT32", "FP32"),
		invalid("UnknownType", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Datatype = "FLOAT" }, "FLOAT"),
		invalid("TooFewBytes", func(r *inferencepb.ModelInferRequest) { r.RawInputContents[0] = r.RawInputContents[0][:100] }, "3136 bytes", "100"),
		invalid("TooManyBytes", func(r *inferencepb.ModelInferRequest) { r.RawInputContents[0] = make([]byte, 4000) }, "3136 bytes", "4000"),
		invalid("NoData", func(r *inferencepb.ModelInferRequest) { r.RawInputContents = nil }, "image"),
		invalid("InputName", func(r *inferencepb.ModelInferRequest) { r.Inputs[0].Name = "picture" }, `"picture"`, `"image"`),
		invalid("NoInput", func(r *inferencepb.ModelInferRequest) { r.Inputs, r.RawInputContents = nil, nil }, `"image"`),
		invalid("OutputName", func(r *inferencepb.ModelInferRequest) {
			r.Outputs = []*inferencepb.ModelInferRequest_InferRequestedOutputTensor{{Name: "class"}}
		}, `"class"`, `"logits"`),
		{"NoDeadlineLeft", change(func(r *inferencepb.ModelInferRequest) {
			r.Parameters = map[string]*inferencepb.InferParameter{"timeout": {ParameterChoice: &inferencepb.InferParameter_Int64Param{Int64Param: 1}}}
		}), codes.DeadlineExceeded, errs.DeadlinePassed, []string{"deadline"}},
	}
}

// badInferences sends what must be refused through each controller, by both
// ways in, and after each of them something that must not be.
func badInferences(t *testing.T, c *cluster) {
	picture := pictures(t)[0]
	for _, bad := range badRequests(request(mlp, picture)) {
		t.Run(bad.name, func(t *testing.T) {
			for _, p := range c.Controllers {
				_, err := unary(t, p).infer(within(t, callTimeout), bad.request)
				expectRefusal(t, err, bad.code, bad.reason, bad.says...)
				t.Logf("%s says: %s", p.Name, status.Convert(err).Message())
				_, _, err = clientOf(t, p).Infer(within(t, callTimeout), bad.request)
				expectError(t, err, bad.reason, bad.says...)
			}
			stillGood(t, c, picture)
		})
	}
}

// stillGood expects that a good request is answered by each controller.
func stillGood(t *testing.T, c *cluster, p picture) {
	t.Helper()
	for _, e := range both(t, c.Controllers...) {
		response, err := e.infer(within(t, callTimeout), request(mlp, p))
		if err == nil {
			err = compare(response, mlp, p)
		}
		if err != nil {
			t.Errorf("a good request afterwards, through %s: %v", e.name, err)
		}
	}
}

// oversized sends a message that is larger than inference.max_message.
func oversized(t *testing.T, c *cluster) {
	r := request(mlp, pictures(t)[0])
	r.RawInputContents[0] = make([]byte, 65<<20)
	for _, p := range c.Controllers {
		_, err := inferencepb.NewGRPCInferenceServiceClient(dial(t, p, "inference")).ModelInfer(within(t, callTimeout), r)
		if code := status.Code(err); code != codes.ResourceExhausted && code != codes.InvalidArgument {
			t.Errorf("a message of 65 MiB to %s: %v (%v)", p.Name, err, code)
		}
	}
	_, _, err := clientOf(t, c.Controllers...).Infer(within(t, callTimeout), r)
	expectError(t, err, errs.Invalid, "max_message")
	stillGood(t, c, pictures(t)[0])
}

// lateLoad asks for a model when the cluster serves.
func lateLoad(t *testing.T, c *cluster) {
	for _, p := range c.Controllers {
		late := &logpb.LoadModel{Name: "late", Source: mlp + ".onnx"}
		_, err := controlpb.NewControlClient(dial(t, p, "control")).LoadModel(within(t, callTimeout), &controlpb.LoadModelRequest{Model: late})
		expectRefusal(t, err, codes.FailedPrecondition, errs.LateLoad, "late_loads", `"late"`)
		_, err = clientOf(t, p).LoadModel(within(t, callTimeout), late)
		expectError(t, err, errs.LateLoad, "late_loads")
	}
	out := orreryCommand(t, "model", "load", "late", "--source", mlp+".onnx", "--control", c.Controllers[0].Addresses["control"])
	if out.status != 1 || !strings.Contains(out.stderr, "late_loads") {
		t.Errorf("exit status %d, stderr %s", out.status, out.stderr)
	}
	stillGood(t, c, pictures(t)[0])
	admitLateLoad(t, c)
}

// admitLateLoad follows the advice of the refusal, and takes all of it back.
func admitLateLoad(t *testing.T, c *cluster) {
	control := "--control=" + c.Controllers[1].Addresses["control"]
	orreryCommand(t, "cluster", "set", "late_loads=admit", control).expect(t, 0, "admit")
	if out := orreryCommand(t, "model", "load", "late", "--source", mlp+".onnx", control); out.status != 0 || strings.Count(out.stdout, "loaded") != len(c.Workers) {
		t.Errorf("exit status %d: %s%s", out.status, out.stdout, out.stderr)
	}
	r := request(mlp, pictures(t)[0])
	r.ModelName = "late"
	for _, e := range both(t, c.Controllers...) {
		eventually(t, recoverTimeout, "an answer through "+e.name, func() error {
			response, err := e.infer(within(t, callTimeout), r)
			if err != nil {
				return err
			}
			response.ModelName = mlp
			return compare(response, mlp, pictures(t)[0])
		})
	}
	orreryCommand(t, "model", "unload", "late", control).expect(t, 0, "1 version of late")
	orreryCommand(t, "cluster", "set", "late_loads=reject", control).expect(t, 0, "reject")
	_, err := unary(t, c.Controllers[0]).infer(within(t, callTimeout), r)
	expectRefusal(t, err, codes.NotFound, errs.UnknownModel, `"late"`)
	stillGood(t, c, pictures(t)[0])
}

// cancelled sends requests whose clients give up.
func cancelled(t *testing.T, c *cluster) {
	r := request(mlp, pictures(t)[:16]...)
	for range 20 {
		for _, e := range both(t, c.Controllers...) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
			if _, err := e.infer(ctx, r); err == nil {
				t.Logf("%s was faster than its client", e.name)
			}
			cancel()
		}
	}
	awaitNothingHeld(t, c)
	stillGood(t, c, pictures(t)[0])
}

// awaitNothingHeld waits until no controller holds a request any more.
func awaitNothingHeld(t *testing.T, c *cluster) {
	t.Helper()
	for _, p := range c.Controllers {
		eventually(t, recoverTimeout, p.Name+" holds no request", func() error {
			for _, name := range []string{"orrery_held_requests", "orrery_held_bytes"} {
				if n, err := metric(t.Context(), p, name); err != nil || n != 0 {
					return errors.Join(err, errors.New(name+" is not 0"))
				}
			}
			return nil
		})
	}
}
