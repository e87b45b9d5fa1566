package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/orrery-project/orrery/proto/logpb"
)

// sortShapes checks declared shapes, and puts them in the order of their names.
func sortShapes(shapes []*logpb.TensorShape) error {
	slices.SortStableFunc(shapes, func(a, b *logpb.TensorShape) int { return cmp.Compare(a.GetName(), b.GetName()) })
	for i, shape := range shapes {
		switch {
		case shape.GetName() == "" || strings.ContainsAny(shape.GetName(), "=;"):
			return fmt.Errorf("%q is no name of an input", shape.GetName())
		case i > 0 && shape.GetName() == shapes[i-1].GetName():
			return fmt.Errorf("input %q is given twice", shape.GetName())
		}
		for _, n := range shape.GetShape() {
			if n < 1 {
				return fmt.Errorf("input %q has the dimension %d: give what is the most there, at least 1", shape.GetName(), n)
			}
		}
	}
	return nil
}

// ShapesKey is the part of a profile's key that declared shapes make; they are sorted by name.
func ShapesKey(shapes []*logpb.TensorShape) string {
	var key strings.Builder
	for i, shape := range shapes {
		if i > 0 {
			key.WriteByte(';')
		}
		key.WriteString(shape.GetName())
		key.WriteByte('=')
		for j, n := range shape.GetShape() {
			if j > 0 {
				key.WriteByte(',')
			}
			key.WriteString(strconv.FormatInt(n, 10))
		}
	}
	return key.String()
}
