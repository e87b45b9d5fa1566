package scheduler

import "math/bits"

// bitset is a set of small numbers: devices by their order.
type bitset []uint64

func (s bitset) has(i int) bool { return i>>6 < len(s) && s[i>>6]&(1<<(i&63)) != 0 }

func (s *bitset) put(i int, in bool) {
	for i>>6 >= len(*s) {
		if !in {
			return
		}
		*s = append(*s, 0)
	}
	if in {
		(*s)[i>>6] |= 1 << (i & 63)
	} else {
		(*s)[i>>6] &^= 1 << (i & 63)
	}
}

// both calls f for what is in both sets, ascending, until f says stop.
func both(a, b bitset, f func(i int) (stop bool)) {
	for w := range min(len(a), len(b)) {
		for word := a[w] & b[w]; word != 0; word &= word - 1 {
			if f(w<<6 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}
