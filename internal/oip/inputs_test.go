package oip

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orrery-project/orrery/internal/tensor"
)

// Typed contents become what a client would have sent raw.
func TestInputsTypedEqualsRaw(t *testing.T) {
	tests := []struct {
		t     tensor.Type
		shape []int64
		typed *contents
		raw   []byte
	}{
		{tensor.Bool, []int64{3}, &contents{BoolContents: []bool{true, false, true}}, []byte{1, 0, 1}},
		{tensor.Uint8, []int64{2}, &contents{UintContents: []uint32{1, 255}}, []byte{1, 255}},
		{tensor.Uint16, []int64{2}, &contents{UintContents: []uint32{1, 0xfffe}}, []byte{1, 0, 0xfe, 0xff}},
		{tensor.Uint32, []int64{1}, &contents{UintContents: []uint32{0xfffefdfc}}, []byte{0xfc, 0xfd, 0xfe, 0xff}},
		{tensor.Uint64, []int64{1}, &contents{Uint64Contents: []uint64{0x0807060504030201}}, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{tensor.Int8, []int64{2}, &contents{IntContents: []int32{-1, 127}}, []byte{255, 127}},
		{tensor.Int16, []int64{2}, &contents{IntContents: []int32{-2, 0x0201}}, []byte{0xfe, 0xff, 1, 2}},
		{tensor.Int32, []int64{1}, &contents{IntContents: []int32{-2}}, []byte{0xfe, 0xff, 0xff, 0xff}},
		{tensor.Int64, []int64{1}, &contents{Int64Contents: []int64{-2}}, []byte{0xfe, 255, 255, 255, 255, 255, 255, 255}},
		{
			tensor.FP32, []int64{2, 1},
			&contents{Fp32Contents: []float32{1, float32(math.Inf(-1))}},
			[]byte{0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xff},
		},
		{tensor.FP64, []int64{}, &contents{Fp64Contents: []float64{-1.5}}, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0xbf}},
		{
			tensor.Bytes, []int64{1, 3},
			&contents{BytesContents: [][]byte{[]byte("ab"), {}, []byte("c")}},
			[]byte{2, 0, 0, 0, 'a', 'b', 0, 0, 0, 0, 1, 0, 0, 0, 'c'},
		},
		{tensor.FP16, []int64{0}, &contents{}, nil},
		{tensor.BF16, []int64{0}, nil, nil},
	}
	covered := map[tensor.Type]bool{}
	for _, tt := range tests {
		covered[tt.t] = true
		t.Run(string(tt.t), func(t *testing.T) {
			sig := tensor.Signature{Inputs: []tensor.Spec{{Name: "x", Type: tt.t, Shape: tt.shape}}}
			var got [2]tensor.Tensor
			for i, req := range []*request{
				typedRequest("x", tt.t, tt.shape, tt.typed),
				rawRequest("x", tt.t, tt.shape, tt.raw),
			} {
				if err := Malformed(req); err != nil {
					t.Fatal(err)
				}
				if _, err := Check(req, sig, 1); err != nil {
					t.Fatal(err)
				}
				inputs, err := Inputs(req, sig)
				if err != nil {
					t.Fatal(err)
				}
				got[i] = inputs[0]
			}
			want := tensor.Tensor{Name: "x", Type: tt.t, Shape: tt.shape, Data: tt.raw}
			if diff := cmp.Diff(want, got[0]); diff != "" {
				t.Errorf("typed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, got[1]); diff != "" {
				t.Errorf("raw (-want +got):\n%s", diff)
			}
		})
	}
	if len(covered) != 14 {
		t.Errorf("the table has %d datatypes of 14", len(covered))
	}
}

func TestInputsInTheSignaturesOrderWithoutCopies(t *testing.T) {
	req := swapped(texts(1, 1))
	inputs, err := Inputs(req, encoder)
	if err != nil {
		t.Fatal(err)
	}
	if inputs[0].Name != "text" || inputs[1].Name != "mask" {
		t.Errorf("got %q, %q", inputs[0].Name, inputs[1].Name)
	}
	if &inputs[0].Data[0] != &req.RawInputContents[1][0] || &inputs[1].Data[0] != &req.RawInputContents[0][0] {
		t.Error("raw data was copied, or is not that of its input")
	}
}

// Inputs is safe on a request that nobody checked.
func TestInputsUnchecked(t *testing.T) {
	_, err := Inputs(&request{}, classifier)
	wantInvalid(t, err, `input "image" is missing; the model takes "image"`)

	_, err = Inputs(with(texts(1, 1), func(r *request) { r.RawInputContents = r.RawInputContents[:1] }), encoder)
	wantInvalid(t, err, `input "mask" has no data: raw_input_contents has only 1 entries`)

	_, err = Inputs(rawRequest("image", tensor.FP32, []int64{1}, []byte{1}), classifier)
	wantInvalid(t, err, `input "image" needs 4 bytes (shape [1] of FP32) but raw_input_contents[0] has 1`)
}
