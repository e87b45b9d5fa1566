package oip

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/internal/tensor"
)

// tester is what testing.T and rapid.T share.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// readAll reads req in every way: nothing may panic, and what passes the checks
// must give tensors that are what they say.
func readAll(t tester, req *request, sig tensor.Signature) {
	t.Helper()
	malformed := Malformed(req)
	shape, unsuited := Check(req, sig, 8)
	inputs, err := Inputs(req, sig)
	CustomParameters(req)
	if malformed != nil || unsuited != nil {
		return
	}
	if err != nil {
		t.Fatalf("a valid request has no inputs: %v", err)
	}
	if shape.Rows < 1 || shape.Rows > 8 || len(inputs) != len(sig.Inputs) {
		t.Fatalf("a valid request has %d rows and %d inputs", shape.Rows, len(inputs))
	}
	for i, in := range inputs {
		if in.Name != sig.Inputs[i].Name || in.Type != sig.Inputs[i].Type {
			t.Fatalf("input %d is %s %s, want %s %s", i, in.Name, in.Type, sig.Inputs[i].Name, sig.Inputs[i].Type)
		}
		if sig.Batched && in.Shape[0] != int64(shape.Rows) {
			t.Fatalf("input %s has shape %v, want %d rows", in.Name, in.Shape, shape.Rows)
		}
		elements, err := tensor.Elements(in.Shape)
		if err != nil {
			t.Fatalf("input %s: %v", in.Name, err)
		}
		if size := in.Type.Size(); size > 0 && int64(len(in.Data)) != elements*int64(size) {
			t.Fatalf("input %s has %d bytes for %d elements of %s", in.Name, len(in.Data), elements, in.Type)
		}
		if taken, rest := skipFrames(in.Data, elements); in.Type == tensor.Bytes && (taken != elements || len(rest) > 0) {
			t.Fatalf("input %s has %d of %d elements and %d bytes after them", in.Name, taken, elements, len(rest))
		}
	}
	if !sig.Batched {
		return
	}
	// Two of a kind can share a batch, and come apart again.
	joined, err := Concat([][]tensor.Tensor{inputs, inputs})
	if err != nil {
		t.Fatalf("can't join a request with itself: %v", err)
	}
	if _, err := Split(joined, []int{shape.Rows, shape.Rows}); err != nil {
		t.Fatalf("can't split what was joined: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, req := range []*request{
		{},
		images(1),
		texts(2, 3),
		typedRequest("text", tensor.Bytes, []int64{1}, &contents{BytesContents: [][]byte{{1}}}),
		typedRequest("image", tensor.FP32, []int64{1, 28, 28}, &contents{Fp32Contents: make([]float32, 28*28)}),
		rawRequest("image", tensor.FP32, []int64{1 << 20, 1 << 20}, nil),
		with(images(1), func(r *request) { r.Parameters = map[string]*parameter{"timeout": int64Param(1)} }),
	} {
		data, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req := &request{}
		if proto.Unmarshal(data, req) != nil {
			return
		}
		for _, sig := range []tensor.Signature{classifier, encoder, {}} {
			readAll(t, req, sig)
		}
	})
}

// Random requests that are near enough to valid to get past the first checks,
// against random signatures.
func TestRandomRequests(t *testing.T) {
	types := []tensor.Type{
		tensor.Bool, tensor.Uint8, tensor.Uint16, tensor.Uint32, tensor.Uint64, tensor.Int8, tensor.Int16,
		tensor.Int32, tensor.Int64, tensor.FP16, tensor.BF16, tensor.FP32, tensor.FP64, tensor.Bytes, "?",
	}
	dimension := rapid.OneOf(rapid.Int64Range(0, 3), rapid.SampledFrom([]int64{-1, 1 << 20, 1 << 40, 1 << 62}))
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	valid := 0
	rapid.Check(t, func(t *rapid.T) {
		req, sig := &request{}, tensor.Signature{Batched: rapid.Bool().Draw(t, "batched")}
		raw := rapid.Bool().Draw(t, "raw")
		for range rapid.IntRange(0, 2).Draw(t, "inputs") {
			in := &input{
				Name: name.Draw(t, "name"), Datatype: string(rapid.SampledFrom(types).Draw(t, "type")),
				Shape: rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(1, 2), dimension), 0, 3).Draw(t, "shape"),
			}
			req.Inputs = append(req.Inputs, in)
			spec := tensor.Spec{Name: in.Name, Type: tensor.Type(in.Datatype), Shape: make([]int64, len(in.Shape))}
			for i, d := range in.Shape {
				spec.Shape[i] = rapid.SampledFrom([]int64{-1, d}).Draw(t, "declared")
			}
			sig.Inputs = append(sig.Inputs, spec)
			data := encodable(spec.Type, in.Shape)
			if raw {
				req.RawInputContents = append(req.RawInputContents, encode(spec.Type, data))
			} else {
				in.Contents = data
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "harm") == 0 && len(req.Inputs) > 0 {
			req.Inputs[0].Name = name.Draw(t, "renamed")
			req.Inputs[0].Shape = rapid.SliceOfN(dimension, 0, 3).Draw(t, "reshaped")
		}
		readAll(t, req, sig)
		if _, err := Check(req, sig, 8); err == nil && Malformed(req) == nil && len(req.Inputs) > 0 {
			valid++
		}
	})
	if valid == 0 {
		t.Error("no request was valid: the test says nothing")
	}
}

// encodable is typed contents of as many elements as shape has, none when those
// are many.
func encodable(t tensor.Type, shape []int64) *contents {
	n, err := tensor.Elements(shape)
	if err != nil || n > 100 {
		n = 0
	}
	switch contentsField(t) {
	case "bool_contents":
		return &contents{BoolContents: make([]bool, n)}
	case "int_contents":
		return &contents{IntContents: make([]int32, n)}
	case "int64_contents":
		return &contents{Int64Contents: make([]int64, n)}
	case "uint_contents":
		return &contents{UintContents: make([]uint32, n)}
	case "uint64_contents":
		return &contents{Uint64Contents: make([]uint64, n)}
	case "fp32_contents":
		return &contents{Fp32Contents: make([]float32, n)}
	case "fp64_contents":
		return &contents{Fp64Contents: make([]float64, n)}
	case "bytes_contents":
		return &contents{BytesContents: make([][]byte, n)}
	default:
		return &contents{}
	}
}
