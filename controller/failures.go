package controller

import "time"

const (
	// profileAttempts are made before something that can't be measured is given up.
	profileAttempts = 3
	// forgiveAfter is how long it is given up for: what was wrong may have been mended.
	forgiveAfter = 5 * time.Minute
)

// failures counts what could not be measured.
type failures[K comparable] map[K]*failure

type failure struct {
	count int
	last  time.Time
}

// count notes a failure, and says how many there were.
func (f failures[K]) count(k K) int {
	if f[k] == nil {
		f[k] = &failure{}
	}
	f[k].count++
	f[k].last = time.Now()
	return f[k].count
}

// final says whether something is given up for now.
func (f failures[K]) final(k K) bool {
	known := f[k]
	if known == nil {
		return false
	}
	if time.Since(known.last) > forgiveAfter {
		delete(f, k)
		return false
	}
	return known.count >= profileAttempts
}
