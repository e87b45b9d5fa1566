package oip

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/internal/tensor"
)

func row(name string, shape []int64, values ...float32) tensor.Tensor {
	return tensor.Tensor{Name: name, Type: tensor.FP32, Shape: shape, Data: floats(values...)}
}

func strings1D(name string, elements ...string) tensor.Tensor {
	data := make([][]byte, len(elements))
	for i, e := range elements {
		data[i] = []byte(e)
	}
	return tensor.Tensor{Name: name, Type: tensor.Bytes, Shape: []int64{int64(len(elements))}, Data: frame(data)}
}

func TestConcatAndSplit(t *testing.T) {
	parts := [][]tensor.Tensor{
		{row("a", []int64{1, 2}, 1, 2), strings1D("b", "one")},
		{row("a", []int64{2, 2}, 3, 4, 5, 6), strings1D("b", "", "three")},
		{row("a", []int64{1, 2}, 7, 8), strings1D("b", "four")},
	}
	joined, err := Concat(parts)
	if err != nil {
		t.Fatal(err)
	}
	want := []tensor.Tensor{row("a", []int64{4, 2}, 1, 2, 3, 4, 5, 6, 7, 8), strings1D("b", "one", "", "three", "four")}
	if diff := cmp.Diff(want, joined); diff != "" {
		t.Fatalf("joined (-want +got):\n%s", diff)
	}
	got, err := Split(joined, []int{1, 2, 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parts, got); diff != "" {
		t.Errorf("split (-want +got):\n%s", diff)
	}
	if joined[0].Shape[0] != 4 {
		t.Error("Split changed its argument's shape")
	}
	if cap(got[0][0].Data) != len(got[0][0].Data) {
		t.Error("appending to one part would write into the next")
	}
}

func TestConcatAndSplitLeaveASinglePartAsItIs(t *testing.T) {
	scalar := []tensor.Tensor{row("x", nil, 1)}
	joined, err := Concat([][]tensor.Tensor{scalar})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Split(joined, []int{1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]tensor.Tensor{scalar}, parts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConcatRefuses(t *testing.T) {
	a := row("a", []int64{1, 2}, 1, 2)
	tests := []struct {
		name  string
		parts [][]tensor.Tensor
		want  string
	}{
		{"nothing", nil, `there are no requests to join`},
		{"count", [][]tensor.Tensor{{a}, {a, a}}, `request 1 of the batch has 2 tensors, but the first has 1`},
		{
			"name",
			[][]tensor.Tensor{{a}, {row("b", []int64{1, 2}, 1, 2)}},
			`tensor "b" (FP32, shape [1 2]) can't join a batch with "a" (FP32, shape [1 2])`,
		},
		{
			"type",
			[][]tensor.Tensor{{a}, {{Name: "a", Type: tensor.Int32, Shape: []int64{1, 2}, Data: make([]byte, 8)}}},
			`tensor "a" (INT32, shape [1 2]) can't join a batch with "a" (FP32, shape [1 2])`,
		},
		{
			"dimension",
			[][]tensor.Tensor{{a}, {row("a", []int64{1, 1}, 1)}},
			`tensor "a" (FP32, shape [1 1]) can't join a batch with "a" (FP32, shape [1 2])`,
		},
		{
			"rank",
			[][]tensor.Tensor{{a}, {row("a", nil, 1)}},
			`tensor "a" (FP32, shape []) can't join a batch with "a" (FP32, shape [1 2])`,
		},
		{
			"scalars",
			[][]tensor.Tensor{{row("a", nil, 1)}, {row("a", nil, 1)}},
			`tensor "a" has no rows to join: it has no dimensions`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Concat(tt.parts)
			wantError(t, err, tt.want)
		})
	}
}

func TestSplitRefuses(t *testing.T) {
	text := strings1D("s", "ab", "c")
	cut, long := text, text
	cut.Data = text.Data[:len(text.Data)-1]
	long.Data = append(text.Data[:len(text.Data):len(text.Data)], 0, 0)
	tests := []struct {
		name string
		out  tensor.Tensor
		rows []int
		want string
	}{
		{
			"too few rows", row("a", []int64{2}, 1, 2),
			[]int{1, 2}, `output "a" has shape [2], but the requests of the batch have 3 rows together`,
		},
		{
			"too many rows", row("a", []int64{3}, 1, 2, 3),
			[]int{1, 1}, `output "a" has shape [3], but the requests of the batch have 2 rows together`,
		},
		{"no parts", row("a", []int64{1}, 1), nil, `output "a" has shape [1], but the requests of the batch have 0 rows together`},
		{"negative", row("a", []int64{1}, 1), []int{2, -1}, `output "a" can't be split into parts of [2 -1] rows`},
		{"scalar", row("a", nil, 1), []int{1, 1}, `output "a" has no rows to split: it has no dimensions`},
		{"data too short", row("a", []int64{2}, 1), []int{1, 1}, `output "a" (FP32, shape [2]) has only 4 bytes`},
		{"data too long", row("a", []int64{2}, 1, 2, 3), []int{1, 1}, `output "a" (FP32, shape [2]) has 4 bytes too many`},
		{"BYTES cut", cut, []int{1, 1}, `output "s" (BYTES, shape [2]) ends inside an element`},
		{"BYTES too long", long, []int{1, 1}, `output "s" (BYTES, shape [2]) has 2 bytes too many`},
		{
			"negative dimension", row("a", []int64{2, -1}, 1, 2),
			[]int{1, 1}, `output "a" is impossible: shape [1 -1] has the negative dimension -1`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Split([]tensor.Tensor{tt.out}, tt.rows)
			wantError(t, err, tt.want)
		})
	}
}

// Splitting what was joined gives the parts back, whatever they hold.
func TestSplitUndoesConcat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := rapid.IntRange(0, 3).Draw(t, "inner")
		rows := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 5).Draw(t, "rows")
		parts := make([][]tensor.Tensor, len(rows))
		for i, n := range rows {
			shape := []int64{int64(n), int64(inner)}
			elements := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 6), n*inner, n*inner).Draw(t, "elements")
			halves := rapid.SliceOfN(rapid.Byte(), 2*n*inner, 2*n*inner).Draw(t, "halves")
			parts[i] = []tensor.Tensor{
				{Name: "text", Type: tensor.Bytes, Shape: shape, Data: frame(elements)},
				{Name: "half", Type: tensor.FP16, Shape: shape, Data: append([]byte{}, halves...)},
			}
		}
		joined, err := Concat(parts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Split(joined, rows)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parts, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
