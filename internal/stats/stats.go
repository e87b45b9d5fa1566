// Package stats sums up measured times, here and on workers alike.
package stats

import "math"

// outlierFactor times the median is where a time counts as an outlier.
const outlierFactor = 3

// Percentile is the nearest-rank percentile, p from 0 to 1, of ascending values, of
// which there is at least one.
func Percentile(sorted []int64, p float64) int64 {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// Outliers counts the times that are more than three times the median.
func Outliers(times []int64, median int64) (n uint32) {
	for _, t := range times {
		if t > outlierFactor*median {
			n++
		}
	}
	return n
}
