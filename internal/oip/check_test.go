package oip

import (
	"testing"

	"github.com/orrery-project/orrery/internal/tensor"
)

func TestCheckRefuses(t *testing.T) {
	rename := func(r *request) { r.Inputs[0].Name = "img" }
	tests := []struct {
		name string
		req  *request
		sig  tensor.Signature
		want string
	}{
		{
			name: "unknown input", sig: classifier, req: with(images(1), rename),
			want: `unknown input "img"; the model takes "image"`,
		},
		{
			name: "unknown input among several", sig: encoder, req: with(texts(1, 1), rename),
			want: `unknown input "img"; the model takes "text", "mask"`,
		},
		{
			name: "missing input", sig: encoder, req: with(texts(1, 1), func(r *request) { r.Inputs = r.Inputs[:1] }),
			want: `input "mask" is missing; the model takes "text", "mask"`,
		},
		{
			name: "no input", sig: classifier, req: &request{},
			want: `input "image" is missing; the model takes "image"`,
		},
		{
			name: "input for a model without", sig: tensor.Signature{}, req: images(1),
			want: `unknown input "image"; the model takes none`,
		},
		{
			name: "too many inputs", sig: classifier, req: with(images(1), func(r *request) { r.Inputs = append(r.Inputs, r.Inputs[0]) }),
			want: `the request has 2 inputs, but the model takes 1: "image"`,
		},
		{
			name: "datatype", sig: classifier, req: with(images(1), func(r *request) { r.Inputs[0].Datatype = "FP64" }),
			want: `input "image" is FP64, but the model takes FP32`,
		},
		{
			name: "dimension", sig: classifier, req: with(images(1), func(r *request) { r.Inputs[0].Shape[2] = 27 }),
			want: `input "image" has shape [1 28 27], but the model takes [-1 28 28]`,
		},
		{
			name: "rank", sig: classifier, req: with(images(1), func(r *request) { r.Inputs[0].Shape = r.Inputs[0].Shape[1:] }),
			want: `input "image" has shape [28 28], but the model takes [-1 28 28]`,
		},
		{
			name: "negative open dimension", sig: classifier, req: with(images(1), func(r *request) { r.Inputs[0].Shape[0] = -1 }),
			want: `input "image" has shape [-1 28 28], but the model takes [-1 28 28]`,
		},
		{
			name: "unequal rows", sig: encoder, req: with(texts(2, 1), func(r *request) { r.Inputs[1].Shape[0] = 3 }),
			want: `input "mask" has 3 rows but input "text" has 2; all inputs need the same first dimension`,
		},
		{
			name: "no rows", sig: classifier, req: images(0),
			want: `input "image" has 0 rows (shape [0 28 28]); a request needs at least 1`,
		},
		{
			name: "too many rows", sig: classifier, req: images(17),
			want: `17 rows are more than the 16 that the model allows in one request; split it`,
		},
		{
			name: "far too many rows", sig: classifier, req: with(images(1), func(r *request) { r.Inputs[0].Shape[0] = 1 << 40 }),
			want: `1099511627776 rows are more than the 16 that the model allows in one request; split it`,
		},
		{
			name: "unknown output", sig: classifier,
			req:  with(images(1), func(r *request) { r.Outputs = []*requested{{Name: "logits"}, {Name: "logit"}} }),
			want: `there is no output "logit"; the model gives "logits"`,
		},
		{
			name: "batched scalar", sig: tensor.Signature{Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32}}, Batched: true},
			req:  rawRequest("x", tensor.FP32, nil, make([]byte, 4)),
			want: `input "x" has no dimensions, but the model is batched: the first dimension is the rows`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shape, err := Check(tt.req, tt.sig, 16)
			wantInvalid(t, err, tt.want)
			if shape != (Shape{}) {
				t.Errorf("got %+v with the error", shape)
			}
		})
	}
}

func TestCheckShape(t *testing.T) {
	unbatched := tensor.Signature{Inputs: []tensor.Spec{{Name: "x", Type: tensor.Uint8, Shape: []int64{-1, 3}}}}
	tests := []struct {
		name string
		req  *request
		sig  tensor.Signature
		want Shape
	}{
		{name: "one row", req: images(1), sig: classifier, want: Shape{Rows: 1}},
		{name: "the most rows", req: images(16), sig: classifier, want: Shape{Rows: 16}},
		{name: "open dimensions", req: texts(2, 7), sig: encoder, want: Shape{Rows: 2, Class: "text,mask:7x2"}},
		{
			name: "the signature's order", sig: encoder, want: Shape{Rows: 2, Class: "text,mask:7x2"},
			req: swapped(texts(2, 7)),
		},
		{
			name: "not batched", sig: unbatched, want: Shape{Rows: 1, Class: "x:100x3"},
			req: rawRequest("x", tensor.Uint8, []int64{100, 3}, make([]byte, 300)),
		},
		{
			name: "not batched, first dimension 0", sig: unbatched, want: Shape{Rows: 1, Class: "x:0x3"},
			req: rawRequest("x", tensor.Uint8, []int64{0, 3}, nil),
		},
		{name: "no inputs", req: &request{}, sig: tensor.Signature{}, want: Shape{Rows: 1}},
		{
			name: "known outputs", sig: encoder, want: Shape{Rows: 1, Class: "text,mask:1x2"},
			req: with(texts(1, 1), func(r *request) { r.Outputs = []*requested{{Name: "norm"}, {Name: "norm"}} }),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Malformed(tt.req); err != nil {
				t.Fatal(err)
			}
			if got, err := Check(tt.req, tt.sig, 16); err != nil || got != tt.want {
				t.Errorf("got %+v and %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	req := images(1)
	b.Run("Malformed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Malformed(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Check(req, classifier, 16); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Inputs", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Inputs(req, classifier); err != nil {
				b.Fatal(err)
			}
		}
	})
}
