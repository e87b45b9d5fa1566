package scheduler

import (
	"slices"
	"time"
)

// Tenants get fair shares of the devices' time: as long as requests are lost, one
// that asks for more than its share and has had more than the others of late is
// served after those that have not. Nothing is reserved, so that what one leaves
// another may use.

const (
	// shareMemory is for how long the time that a tenant has had counts against it:
	// after that, a 2.7th of it still does.
	shareMemory = time.Second
	// tenantIdle is after what time without a request a tenant is no longer one of
	// those that share, and tenantGone after what time it is forgotten.
	tenantIdle = time.Second
	tenantGone = 10 * time.Second
	// greed is how much more than the mean of what all have had a tenant may ask for
	// before it is served last: those that all ask for about the same are equal.
	greed = 1.25
	// tenantsKnown is how many there are at most: names are free, and memory is not.
	// Further ones share with the nameless.
	tenantsKnown = 10_000
	// sharesLast is how long the shares are not computed anew.
	sharesLast = 10 * time.Millisecond
)

// tenant is who requests belong to.
type tenant struct {
	name  string
	asked fading  // device time that its requests would take
	used  fading  // device time that it has had
	seen  Instant // its last request
	over  bool    // it has had more than its share
}

// tenants are those that are known.
type tenants struct {
	byName map[string]*tenant
	all    []*tenant
	last   *tenant // that was asked for
	fresh  Instant // until when the shares hold
}

// of is the tenant of that name; one that was not there for a while is new.
func (t *tenants) of(now Instant, name string) *tenant {
	if t.last == nil || t.last.name != name {
		if t.byName[name] == nil && len(t.all) >= tenantsKnown {
			name = ""
		}
		if t.last = t.byName[name]; t.last == nil {
			if t.byName == nil {
				t.byName = make(map[string]*tenant)
			}
			t.last = &tenant{name: name}
			t.byName[name] = t.last
			t.all = append(t.all, t.last)
		}
	}
	t.last.seen = now
	if len(t.all) > 1 && now >= t.fresh {
		t.share(now)
	}
	return t.last
}

// share says who has had more than a fair share, the mean of those that are there,
// and asks for more than that.
func (t *tenants) share(now Instant) {
	t.fresh = now.Add(sharesLast)
	t.all = slices.DeleteFunc(t.all, func(x *tenant) bool {
		gone := now.Sub(x.seen) > tenantGone
		if gone {
			delete(t.byName, x.name)
		}
		return gone
	})
	used, n := 0.0, 0
	for _, x := range t.all {
		if now.Sub(x.seen) <= tenantIdle {
			used += x.used.now(now, shareMemory)
			n++
		}
	}
	mean := used / float64(max(1, n))
	for _, x := range t.all {
		x.over = n > 1 && x.used.now(now, shareMemory) > mean && x.asked.now(now, shareMemory) > greed*mean
	}
}

// ask notes the time that a request would take.
func (x *tenant) ask(now Instant, d time.Duration) { x.asked.add(now, d.Seconds(), shareMemory) }

// charge notes the time that a tenant's requests take on a device.
func (x *tenant) charge(now Instant, d time.Duration) { x.used.add(now, d.Seconds(), shareMemory) }
