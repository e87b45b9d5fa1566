package oip

import (
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/orrery-project/orrery/internal/tensor"
)

func TestMalformed(t *testing.T) {
	tests := []struct {
		name string
		req  *request
		want string
	}{
		{
			name: "surplus raw", want: `raw_input_contents has 2 entries, but the request has 1 inputs; either every input has one, or none`,
			req: with(images(1), func(r *request) { r.RawInputContents = append(r.RawInputContents, nil) }),
		},
		{
			name: "too little raw", want: `raw_input_contents has 1 entries, but the request has 2 inputs; either every input has one, or none`,
			req: with(texts(1, 1), func(r *request) { r.RawInputContents = r.RawInputContents[:1] }),
		},
		{
			name: "duplicate name", want: `input "text" is given twice`,
			req: with(texts(1, 1), func(r *request) { r.Inputs[1] = r.Inputs[0] }),
		},
		{
			name: "unknown datatype",
			want: `input "x" has the unknown datatype "fp32"; the protocol has BOOL, UINT8, UINT16, UINT32, UINT64, ` +
				`INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64 and BYTES`,
			req: rawRequest("x", "fp32", []int64{1}, make([]byte, 4)),
		},
		{
			name: "negative dimension", want: `input "x" is impossible: shape [2 -1] has the negative dimension -1`,
			req: rawRequest("x", tensor.FP32, []int64{2, -1}, nil),
		},
		{
			name: "overflow", want: `input "x" is impossible: shape [4294967296 4294967296] has more than 1099511627776 elements`,
			req: rawRequest("x", tensor.FP32, []int64{1 << 32, 1 << 32}, nil),
		},
		{
			name: "raw too short", want: `input "image" needs 3136 bytes (shape [1 28 28] of FP32) but raw_input_contents[0] has 3135`,
			req: with(images(1), func(r *request) { r.RawInputContents[0] = r.RawInputContents[0][1:] }),
		},
		{
			name: "raw too long", want: `input "x" needs 8 bytes (shape [1] of INT64) but raw_input_contents[0] has 9`,
			req: rawRequest("x", tensor.Int64, []int64{1}, make([]byte, 9)),
		},
		{
			name: "scalar", want: `input "x" needs 8 bytes (shape [] of FP64) but raw_input_contents[0] has 0`,
			req: rawRequest("x", tensor.FP64, nil, nil),
		},
		{
			name: "not a BOOL", want: `input "x" has the value 2 at element 1, but a BOOL is 0 or 1`,
			req: rawRequest("x", tensor.Bool, []int64{2}, []byte{1, 2}),
		},
		{
			name: "raw and typed", want: `input "x" has its data twice, in raw_input_contents[0] and in int_contents; leave one out`,
			req: with(rawRequest("x", tensor.Int32, []int64{1}, make([]byte, 4)), func(r *request) {
				r.Inputs[0].Contents = &contents{IntContents: []int32{1}}
			}),
		},
		{
			name: "no data", want: `input "x" has no data; give it in raw_input_contents`,
			req: typedRequest("x", tensor.FP32, []int64{1}, nil),
		},
		{
			name: "no data for a type without contents", want: `input "x" has no data; give it in raw_input_contents`,
			req: typedRequest("x", tensor.BF16, []int64{1}, &contents{}),
		},
		{
			name: "wrong field", want: `input "x" has data in fp64_contents, but FP32 goes into fp32_contents`,
			req: typedRequest("x", tensor.FP32, []int64{1}, &contents{Fp64Contents: []float64{1}}),
		},
		{
			name: "two fields", want: `input "x" has data in int64_contents, but INT32 goes into int_contents`,
			req: typedRequest("x", tensor.Int32, []int64{1}, &contents{IntContents: []int32{1}, Int64Contents: []int64{1}}),
		},
		{
			name: "typed FP16", want: `input "x" has its data in fp32_contents, but FP16 has no typed contents; use raw_input_contents`,
			req: typedRequest("x", tensor.FP16, []int64{1}, &contents{Fp32Contents: []float32{1}}),
		},
		{
			name: "typed too short", want: `input "x" needs 6 elements (shape [2 3] of INT64) but int64_contents has 5`,
			req: typedRequest("x", tensor.Int64, []int64{2, 3}, &contents{Int64Contents: make([]int64, 5)}),
		},
		{
			name: "typed surplus", want: `input "x" needs 0 elements (shape [0] of BYTES) but bytes_contents has 1`,
			req: typedRequest("x", tensor.Bytes, []int64{0}, &contents{BytesContents: [][]byte{nil}}),
		},
		{
			name: "INT8 out of range", want: `input "x" has the value -129 at element 1, but INT8 holds -128 to 127`,
			req: typedRequest("x", tensor.Int8, []int64{2}, &contents{IntContents: []int32{-128, -129}}),
		},
		{
			name: "INT16 out of range", want: `input "x" has the value 32768 at element 0, but INT16 holds -32768 to 32767`,
			req: typedRequest("x", tensor.Int16, []int64{1}, &contents{IntContents: []int32{32768}}),
		},
		{
			name: "UINT8 out of range", want: `input "x" has the value 256 at element 1, but UINT8 holds 0 to 255`,
			req: typedRequest("x", tensor.Uint8, []int64{2}, &contents{UintContents: []uint32{255, 256}}),
		},
		{
			name: "UINT16 out of range", want: `input "x" has the value 65536 at element 0, but UINT16 holds 0 to 65535`,
			req: typedRequest("x", tensor.Uint16, []int64{1}, &contents{UintContents: []uint32{65536}}),
		},
		{
			name: "BYTES cut in a length",
			want: `input "x" needs 2 elements (shape [2] of BYTES) but raw_input_contents[0] ends inside element 1; ` +
				`each element is its length in 4 little-endian bytes, then its content`,
			req: rawRequest("x", tensor.Bytes, []int64{2}, []byte{1, 0, 0, 0, 'a', 0, 0, 0}),
		},
		{
			name: "BYTES cut in a content",
			want: `input "x" needs 1 elements (shape [1] of BYTES) but raw_input_contents[0] ends inside element 0; ` +
				`each element is its length in 4 little-endian bytes, then its content`,
			req: rawRequest("x", tensor.Bytes, []int64{1}, []byte{255, 255, 255, 255, 'a', 'b'}),
		},
		{
			name: "BYTES surplus", want: `input "x" needs 1 elements (shape [1] of BYTES) but raw_input_contents[0] has 3 bytes after them`,
			req: rawRequest("x", tensor.Bytes, []int64{1}, []byte{1, 0, 0, 0, 'a', 'b', 'c', 'd'}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantInvalid(t, Malformed(tt.req), tt.want) })
	}
}

func TestMalformedAcceptsWellFormedRequests(t *testing.T) {
	for name, req := range map[string]*request{
		"nothing":          {},
		"images":           images(3),
		"two inputs":       texts(2, 5),
		"empty tensor":     rawRequest("x", tensor.FP32, []int64{0, 7}, nil),
		"empty typed":      typedRequest("x", tensor.FP16, []int64{0}, nil),
		"scalar":           rawRequest("x", tensor.FP16, nil, make([]byte, 2)),
		"empty contents":   with(images(1), func(r *request) { r.Inputs[0].Contents = &contents{} }),
		"limits of ranges": typedRequest("x", tensor.Int8, []int64{2}, &contents{IntContents: []int32{-128, 127}}),
		"empty BYTES":      rawRequest("x", tensor.Bytes, []int64{1}, make([]byte, 4)),
		"known parameters": with(images(1), func(r *request) {
			r.Parameters = map[string]*parameter{"triton_enable_empty_final_response": boolParam(true)}
		}),
		"custom parameters": with(images(1), func(r *request) { r.Parameters = map[string]*parameter{"tenant": stringParam("a")} }),
	} {
		if err := Malformed(req); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedNamesOnlyAsMuchAsFitsInAHeader(t *testing.T) {
	err := Malformed(rawRequest(strings.Repeat("ä", 1<<20), "?", nil, nil))
	if err == nil || len(err.Error()) > maxMessageBytes+len("…") || !utf8.ValidString(err.Error()) {
		t.Fatalf("got a message of %d bytes, want valid text of at most %d", len(err.Error()), maxMessageBytes)
	}
}

// A shape is only a claim: what reading a request allocates is bounded by what
// was sent.
func TestClaimedShapeAllocatesNothing(t *testing.T) {
	shape := []int64{1 << 20, 1 << 20}
	for name, req := range map[string]*request{
		"raw":         rawRequest("x", tensor.FP32, shape, make([]byte, 64)),
		"raw BYTES":   rawRequest("x", tensor.Bytes, shape, make([]byte, 64)),
		"typed":       typedRequest("x", tensor.FP32, shape, &contents{Fp32Contents: make([]float32, 16)}),
		"typed BYTES": typedRequest("x", tensor.Bytes, shape, &contents{BytesContents: make([][]byte, 16)}),
		"none":        typedRequest("x", tensor.Int8, shape, nil),
	} {
		sig := tensor.Signature{
			Inputs:  []tensor.Spec{{Name: "x", Type: tensor.Type(req.Inputs[0].Datatype), Shape: []int64{-1, -1}}},
			Batched: true,
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := Malformed(req)
		_, checkErr := Check(req, sig, 1<<30)
		_, inputsErr := Inputs(req, sig)
		runtime.ReadMemStats(&after)
		if err == nil || inputsErr == nil {
			t.Errorf("%s: got the errors %v and %v, want both", name, err, inputsErr)
		}
		if checkErr != nil {
			t.Errorf("%s: the shape should suit the model: %v", name, checkErr)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<10 {
			t.Errorf("%s: allocated %d bytes", name, used)
		}
	}
}
