package scheduler

// alarm is the next instant at which something happens to a model or a device
// by the mere passing of time.
type alarm struct {
	at    Instant // 0: none is set
	index int     // in alarms
	// One of the two is whose it is.
	model  *model
	device *device
}

// ringing is an entry of alarms: at stands in it so that comparing two does not
// follow pointers.
type ringing struct {
	at    Instant
	alarm *alarm
}

// alarms are all alarms that are set, as a binary heap with the first on top.
// It is written out, because container/heap calls through an interface at each
// comparison, and a request moves several entries.
type alarms []ringing

// set moves an alarm to an instant; 0 takes it out.
func (h *alarms) set(a *alarm, at Instant) {
	switch {
	case a.at == at:
		return
	case at == 0:
		h.remove(a)
	case a.at == 0:
		a.at, a.index = at, len(*h)
		*h = append(*h, ringing{at, a})
		h.up(a.index)
	default:
		earlier := at < a.at
		a.at, (*h)[a.index].at = at, at
		if earlier {
			h.up(a.index)
		} else {
			h.down(a.index)
		}
	}
}

func (h *alarms) remove(a *alarm) {
	i, last := a.index, len(*h)-1
	h.swap(i, last)
	*h = (*h)[:last]
	a.at = 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

// first is the instant of the first alarm; 0: none is set.
func (h alarms) first() Instant {
	if len(h) == 0 {
		return 0
	}
	return h[0].at
}

func (h alarms) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarm.index, h[j].alarm.index = i, j
}

func (h alarms) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h alarms) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[i].at <= h[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}
