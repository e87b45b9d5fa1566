package sim

import (
	"math/bits"
	"time"
)

// subBuckets divide each doubling of a duration: a quantile is off by less than
// half a percent.
const (
	subBits    = 7
	subBuckets = 1 << subBits
)

// histogram counts durations. Quantiles are the middles of its buckets, but the
// largest duration and the mean are exact.
type histogram struct {
	counts []uint32
	n      uint64
	most   time.Duration
	sum    time.Duration
}

// bucketOf: durations below subBuckets microseconds have buckets of a microsecond;
// above, each doubling has subBuckets of them.
func bucketOf(d time.Duration) int {
	us := uint64(max(0, d) / time.Microsecond)
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return (shift+1)*subBuckets + int(us>>shift) - subBuckets
}

// middle is the middle of a bucket.
func middle(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)*time.Microsecond + time.Microsecond/2
	}
	shift := bucket/subBuckets - 1
	low := (uint64(bucket%subBuckets) + subBuckets) << shift
	return time.Duration(2*low+1<<shift) * time.Microsecond / 2
}

func (h *histogram) add(d time.Duration) {
	b := bucketOf(d)
	for len(h.counts) <= b {
		h.counts = append(h.counts, make([]uint32, b+1-len(h.counts))...)
	}
	h.counts[b]++
	h.n++
	h.most = max(h.most, d)
	h.sum += d
}

func (h *histogram) reset() {
	clear(h.counts)
	h.n, h.most, h.sum = 0, 0, 0
}

func (h *histogram) mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// quantile is the duration that a share q of all does not exceed, 0 of none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) || rank == 0 {
		rank++
	}
	seen := uint64(0)
	for b, c := range h.counts {
		if seen += uint64(c); seen >= rank {
			return min(middle(b), h.most)
		}
	}
	return h.most
}
