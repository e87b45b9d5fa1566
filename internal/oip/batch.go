package oip

import (
	"fmt"
	"slices"

	"github.com/orrery-project/orrery/internal/tensor"
)

// Concat joins the inputs of several requests row by row, that is, along the
// first dimension. All parts must have the same tensors, in the same order,
// with the same names, types and other dimensions. A single part is returned
// as it is, so that it may also be without a batch dimension.
func Concat(parts [][]tensor.Tensor) ([]tensor.Tensor, error) {
	switch len(parts) {
	case 0:
		return nil, fmt.Errorf("there are no requests to join")
	case 1:
		return parts[0], nil
	}
	for i, part := range parts {
		if len(part) != len(parts[0]) {
			return nil, fmt.Errorf("request %d of the batch has %d tensors, but the first has %d", i, len(part), len(parts[0]))
		}
	}
	joined := make([]tensor.Tensor, len(parts[0]))
	for i := range joined {
		t, err := concat(parts, i)
		if err != nil {
			return nil, err
		}
		joined[i] = t
	}
	return joined, nil
}

// concat joins tensor i of each part.
func concat(parts [][]tensor.Tensor, i int) (tensor.Tensor, error) {
	first := parts[0][i]
	if len(first.Shape) == 0 {
		return tensor.Tensor{}, fmt.Errorf("tensor %q has no rows to join: it has no dimensions", first.Name)
	}
	rows, size := int64(0), 0
	for _, part := range parts {
		t := part[i]
		if t.Name != first.Name || t.Type != first.Type || len(t.Shape) != len(first.Shape) ||
			!slices.Equal(t.Shape[1:], first.Shape[1:]) {
			return tensor.Tensor{}, fmt.Errorf("tensor %q (%s, shape %v) can't join a batch with %q (%s, shape %v)",
				t.Name, t.Type, t.Shape, first.Name, first.Type, first.Shape)
		}
		rows += t.Shape[0]
		size += len(t.Data)
	}
	data := make([]byte, 0, size)
	for _, part := range parts {
		// BYTES too: each element carries its own length.
		data = append(data, part[i].Data...)
	}
	return tensor.Tensor{Name: first.Name, Type: first.Type, Shape: withRows(first.Shape, rows), Data: data}, nil
}

// Split cuts outputs along the first dimension into parts of so many rows; the
// rows must add up to the outputs' own. Data is aliased, not copied. A single
// part is returned as it is, so that it may also be without a batch dimension.
func Split(outputs []tensor.Tensor, rows []int) ([][]tensor.Tensor, error) {
	if len(rows) == 1 {
		return [][]tensor.Tensor{outputs}, nil
	}
	parts := make([][]tensor.Tensor, len(rows))
	for i := range parts {
		parts[i] = make([]tensor.Tensor, len(outputs))
	}
	for o, out := range outputs {
		if err := checkSplit(out, rows); err != nil {
			return nil, err
		}
		rest := out.Data
		for i, n := range rows {
			size, err := partBytes(out, rest, n)
			if err != nil {
				return nil, err
			}
			parts[i][o] = tensor.Tensor{
				Name: out.Name, Type: out.Type, Shape: withRows(out.Shape, int64(n)),
				Data: rest[:size:size],
			}
			rest = rest[size:]
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("output %q (%s, shape %v) has %d bytes too many", out.Name, out.Type, out.Shape, len(rest))
		}
	}
	return parts, nil
}

// checkSplit checks that out can be cut into parts of so many rows.
func checkSplit(out tensor.Tensor, rows []int) error {
	if len(out.Shape) == 0 {
		return fmt.Errorf("output %q has no rows to split: it has no dimensions", out.Name)
	}
	total := int64(0)
	for _, n := range rows {
		if n < 0 {
			return fmt.Errorf("output %q can't be split into parts of %v rows", out.Name, rows)
		}
		total += int64(n)
	}
	if total != out.Shape[0] {
		return fmt.Errorf("output %q has shape %v, but the requests of the batch have %d rows together", out.Name, out.Shape, total)
	}
	return nil
}

// partBytes is the length of the first n rows of out's remaining data.
func partBytes(out tensor.Tensor, rest []byte, n int) (int, error) {
	elements, err := tensor.Elements(withRows(out.Shape, int64(n)))
	if err != nil {
		return 0, fmt.Errorf("output %q is impossible: %w", out.Name, err)
	}
	if out.Type == tensor.Bytes {
		taken, after := skipFrames(rest, elements)
		if taken < elements {
			return 0, fmt.Errorf("output %q (%s, shape %v) ends inside an element", out.Name, out.Type, out.Shape)
		}
		return len(rest) - len(after), nil
	}
	need := elements * int64(out.Type.Size())
	if need > int64(len(rest)) {
		return 0, fmt.Errorf("output %q (%s, shape %v) has only %d bytes", out.Name, out.Type, out.Shape, len(out.Data))
	}
	return int(need), nil
}

func withRows(shape []int64, rows int64) []int64 {
	s := slices.Clone(shape)
	s[0] = rows
	return s
}
