package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// lookupTimeout bounds one resolution of a name.
const lookupTimeout = 5 * time.Second

// firstJoinInterval is the pause after the first attempt to reach a seed. It doubles up to the configured one: processes
// that are started together find each other at once, and one that waits for long makes no noise.
const firstJoinInterval = 100 * time.Millisecond

// sayAfter is how long a seed is not reached until the log says so, unless none is: those that were lost together are found
// out one after the other.
const sayAfter = 15 * time.Second

// seed is a configured member.
type seed struct {
	text     string // as configured
	host     string
	port     uint16
	resolver Resolver

	// Guarded by the cluster's lock.
	tried, reached bool      // reached is the last outcome, if tried
	silentSince    time.Time // while it isn't reached
	said           bool      // that it isn't reached
}

func parseSeeds(texts []string, resolver Resolver) ([]*seed, error) {
	var seeds []*seed
	for _, text := range texts {
		host, port, err := splitHostPort(text)
		if err != nil || host == "" || port == 0 {
			return nil, fmt.Errorf("seed %q: write it as host:port", text)
		}
		seeds = append(seeds, &seed{text: text, host: host, port: port, resolver: resolver})
	}
	return seeds, nil
}

func splitHostPort(address string) (host string, port uint16, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(service, 10, 16)
	return host, uint16(n), err
}

// keepJoining contacts a seed whenever it isn't seen, until ctx ends. This is also what joins the halves of a partition
// again: memberlist doesn't.
func (c *Cluster) keepJoining(ctx context.Context, s *seed) {
	c.mu.Lock()
	c.joining = append(c.joining, s)
	c.mu.Unlock()
	for wait := firstJoinInterval; ctx.Err() == nil; wait *= 2 {
		wait = min(wait, c.rejoinInterval)
		if err := c.join(ctx, s); ctx.Err() == nil {
			c.tell(s, err)
		}
		// Some jitter, so that a controller that comes back isn't joined by all workers in the same moment.
		pause(ctx, wait*3/4+rand.N(wait/2+1))
	}
}

// tell logs what has changed with the last attempt to reach a seed. That none is reached is one line: whoever is started
// before its cluster, or has lost it, has but one thing to say. That a single one isn't is said after a while.
func (c *Cluster) tell(s *seed, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		if !s.reached {
			c.log.Info("seed reached", "seed", s.text)
		}
		s.tried, s.reached, s.said = true, true, false
		return
	}
	if !s.tried || s.reached {
		s.silentSince = time.Now()
	}
	s.tried, s.reached = true, false
	if slices.ContainsFunc(c.joining, func(other *seed) bool { return !other.tried }) {
		return
	}
	var all []string
	none, unsaid := true, false
	for _, other := range c.joining {
		none, unsaid = none && !other.reached, unsaid || !other.said
		all = append(all, other.text)
	}
	slices.Sort(all)
	switch {
	case none && unsaid:
		c.log.Warn("no seed reached; trying again until one is", "seeds", all, "error", err)
		for _, other := range c.joining {
			other.said = true
		}
	case !s.said && time.Since(s.silentSince) >= sayAfter:
		c.log.Warn("seed not reached; trying again until it is", "seed", s.text, "error", err)
		s.said = true
	}
}

// join contacts those addresses of a seed that no living member has. It fails if the seed has no address, or none that
// is a member or answers.
func (c *Cluster) join(ctx context.Context, s *seed) error {
	ips, err := resolve(ctx, s.resolver, s.host)
	if err != nil {
		return err
	}
	reached := false
	var failures []error
	for _, ip := range ips {
		address := netip.AddrPortFrom(ip, s.port).String()
		if address == c.local || c.table.hasAddress(address) {
			reached = true
			continue
		}
		if _, err := c.list.Join([]string{address}); err != nil {
			failures = append(failures, cmp.Or(errors.Unwrap(err), err)) // the one inside a list of one
			continue
		}
		reached = true
	}
	if reached {
		return nil
	}
	return errors.Join(failures...)
}

// resolve returns the IP addresses of a host, at least one if there is no error. memberlist could do it, but neither
// quietly nor so that it can be interrupted.
func resolve(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("resolve %s: no IP address", host)
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
