package scheduler

import (
	"math"
	"slices"
	"time"
)

// Tenants get fair shares of the devices' time: as long as requests are lost, one
// that has had more than its share of late is served after those that have not.
// Nothing is reserved, so that what one leaves another may use.

const (
	// shareMemory is for how long the time that a tenant has had counts against it:
	// after that, a 2.7th of it still does.
	shareMemory = time.Second
	// tenantIdle is after what time without a request a tenant is no longer one of
	// those that share, and tenantGone after what time it is forgotten.
	tenantIdle = time.Second
	tenantGone = 10 * time.Second
	// sharesLast is how long the shares are not computed anew.
	sharesLast = 10 * time.Millisecond
)

// tenant is who requests belong to.
type tenant struct {
	name string
	// used is the device time it has had, fading; as of at.
	used float64
	at   Instant
	seen Instant // its last request
	over bool    // it has had more than its share
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
		if t.last = t.byName[name]; t.last == nil {
			if t.byName == nil {
				t.byName = make(map[string]*tenant)
			}
			t.last = &tenant{name: name, at: now}
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

// share says who has had more than a fair share: more than the mean of those that
// are there.
func (t *tenants) share(now Instant) {
	t.fresh = now.Add(sharesLast)
	t.all = slices.DeleteFunc(t.all, func(x *tenant) bool {
		gone := now.Sub(x.seen) > tenantGone
		if gone {
			delete(t.byName, x.name)
		}
		return gone
	})
	sum, n := 0.0, 0
	for _, x := range t.all {
		x.fade(now)
		if now.Sub(x.seen) <= tenantIdle {
			sum += x.used
			n++
		}
	}
	for _, x := range t.all {
		x.over = n > 1 && x.used > sum/float64(n)
	}
}

func (x *tenant) fade(now Instant) {
	x.used *= math.Exp(-float64(now.Sub(x.at)) / float64(shareMemory))
	x.at = now
}

// charge notes the time that a tenant's requests take on a device.
func (x *tenant) charge(d time.Duration) { x.used += d.Seconds() }
