package workerd

import "slices"

// residency is how far the weights of a model have come on a device. Its pages are taken in every state.
type residency int

const (
	// loading: on the way to the device.
	loading residency = iota
	// resident: ready to run.
	resident
	// leaving: being evicted.
	leaving
	// borrowed: a profile loads and evicts them as it likes.
	borrowed
)

// pageCache accounts for the pages of one device's weights cache. It moves no bytes: who calls it does, and says so.
type pageCache struct {
	pageBytes int64
	total     int
	free      int
	held      map[uint64]*slot // by model id
}

// slot is what one model has in the cache.
type slot struct {
	pages int
	state residency
}

func newPageCache(pageBytes int64, pages int) *pageCache {
	return &pageCache{pageBytes: pageBytes, total: pages, free: pages, held: make(map[uint64]*slot)}
}

// pagesFor is how many pages so many bytes of weights take: at least one.
func (c *pageCache) pagesFor(weightsBytes int64) int {
	return int(max(1, (weightsBytes+c.pageBytes-1)/c.pageBytes))
}

// take gives pages to a model that has none. It says false, and changes nothing, when there are not enough.
func (c *pageCache) take(model uint64, weightsBytes int64, state residency) bool {
	n := c.pagesFor(weightsBytes)
	if c.held[model] != nil || n > c.free {
		return false
	}
	c.free -= n
	c.held[model] = &slot{pages: n, state: state}
	return true
}

// release takes the pages of a model back. Without any it does nothing.
func (c *pageCache) release(model uint64) {
	if s := c.held[model]; s != nil {
		c.free += s.pages
		delete(c.held, model)
	}
}

// is says whether the model has pages and is in that state.
func (c *pageCache) is(model uint64, state residency) bool {
	s := c.held[model]
	return s != nil && s.state == state
}

// models returns the ids of the models that have pages, ascending.
func (c *pageCache) models() []uint64 {
	ids := make([]uint64, 0, len(c.held))
	for id := range c.held {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
