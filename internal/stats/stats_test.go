package stats

import "testing"

func TestPercentile(t *testing.T) {
	var hundred []int64
	for n := range int64(100) {
		hundred = append(hundred, n+1)
	}
	for _, c := range []struct {
		of   []int64
		p    float64
		want int64
	}{{[]int64{5}, 0.99, 5}, {[]int64{1, 2}, 0.5, 1}, {[]int64{1, 2, 3}, 0.5, 2}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1}} {
		if got := Percentile(c.of, c.p); got != c.want {
			t.Errorf("the %v of %d values is %d, want %d", c.p, len(c.of), got, c.want)
		}
	}
}

func TestOutliers(t *testing.T) {
	if n := Outliers([]int64{1, 3, 4, 100}, 1); n != 2 {
		t.Errorf("%d outliers, want those above 3", n)
	}
}
