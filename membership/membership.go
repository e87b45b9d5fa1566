// Package membership tells who may be there: controllers and workers in one gossip cluster, each with its role and its
// addresses. It is a hint. Whoever holds the key can declare anyone dead, and a death is found only after seconds: so a
// change here makes the reader look for itself, and decides nothing.
package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// leaveTimeout bounds how long a leaving member waits until it has told the others.
const leaveTimeout = 500 * time.Millisecond

// Role is what a member is.
type Role string

const (
	Controller Role = "controller"
	Worker     Role = "worker"
)

// Addresses are where a member listens, each "host:port" and empty if it doesn't.
type Addresses struct {
	Inference string `json:"inference,omitempty"`
	Control   string `json:"control,omitempty"`
	Peer      string `json:"peer,omitempty"`
	Raft      string `json:"raft,omitempty"`
	Session   string `json:"session,omitempty"`
}

// Member is one start of a controller or worker. After a crash, two members of one name are there until the death of
// the older is found; which of them is the younger, their incarnations don't say.
type Member struct {
	Name          string // stable, such as "c1" or "w1"
	Incarnation   string // new at each start
	Role          Role
	Addresses     Addresses
	GossipAddress string // "ip:port"
}

// Options configure a Cluster. Name, Incarnation and Role are required.
type Options struct {
	Name        string // without "/"
	Incarnation string // unique to this start of the process
	Role        Role
	Addresses   Addresses // all of them in at most 512 bytes of JSON

	Bind      string // "host:port" for both UDP and TCP; port 0 lets the system pick
	Advertise string // "host:port" that others reach this member at; empty: Bind, or the private IP of this machine if Bind is unspecified

	Transport memberlist.NodeAwareTransport // instead of Bind and Advertise
	Resolver  Resolver                      // nil: net.DefaultResolver

	Seeds []string // "host:port" of members to join; a host may have many IP addresses, or none yet; this member itself may be among them
	Key   []byte   // of 16, 24 or 32 bytes, the same for all members; empty: no encryption

	ProbeInterval    time.Duration // between probes of one random member; default 500 ms
	ProbeTimeout     time.Duration // for an answer, until others are asked to probe; default 250 ms
	SuspicionMult    int           // a suspect has this × log10(members) probe intervals, at least this × 1, to object; default 4
	PushPullInterval time.Duration // between full exchanges with one random member; default 10 s
	RejoinInterval   time.Duration // between attempts to reach a seed that isn't seen; default 3 s

	Logger hclog.Logger // nil: none
}

// Resolver finds the IP addresses of a host; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Cluster is this member's part of, and view of, the gossip cluster. All methods but Run may be called from any
// goroutine.
type Cluster struct {
	list  *memberlist.Memberlist
	table *table
	local string
	log   hclog.Logger

	seeds    []*seed // configured
	resolver Resolver
	fresh    chan *seed
	mu       sync.Mutex
	known    map[string]bool // all seeds ever named
	joining  []*seed         // those that are being joined

	rejoinInterval time.Duration
	stopDials      context.CancelFunc
}

// Open starts to listen and to answer others; it contacts nobody. Call Run once in any case, with an ended context if the
// rest of the start failed: it is what frees the port again.
func Open(o Options) (*Cluster, error) {
	o = o.withDefaults()
	meta, err := o.validate()
	if err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	log := o.Logger.Named("membership")
	dials, stopDials := context.WithCancel(context.Background())
	c := &Cluster{
		table:          newTable(log),
		log:            log,
		rejoinInterval: o.RejoinInterval,
		stopDials:      stopDials,
	}
	c.resolver, c.fresh, c.known = o.Resolver, make(chan *seed), map[string]bool{}
	for _, text := range o.Seeds {
		c.known[text] = true
	}
	if c.seeds, err = parseSeeds(o.Seeds, o.Resolver); err == nil {
		c.list, err = c.create(dials, o, meta)
	}
	if err != nil {
		stopDials()
		return nil, fmt.Errorf("open membership: %w", err)
	}
	c.local = c.list.LocalNode().Address()
	return c, nil
}

func (c *Cluster) create(dials context.Context, o Options, meta metadata) (*memberlist.Memberlist, error) {
	config := memberlist.DefaultLANConfig()
	config.Name = gossipName(o.Name, o.Incarnation)
	config.Delegate = meta
	config.Events = c.table
	config.SecretKey = o.Key
	config.ProbeInterval = o.ProbeInterval
	config.ProbeTimeout = o.ProbeTimeout
	config.SuspicionMult = o.SuspicionMult
	config.PushPullInterval = o.PushPullInterval
	config.TCPTimeout = 2 * time.Second
	// With the defaults, news in a small cluster now and then misses somebody until the next push/pull. With these it seldom
	// does, and it gets around within leaveTimeout.
	config.GossipInterval = 50 * time.Millisecond
	config.RetransmitMult = 8
	// What members say is short. To compress a packet takes a hundred times the processor that it saves the network: most of
	// what a hundred members in one process did was that. Compressed ones are understood all the same.
	config.EnableCompression = false
	// Even its errors are everyday life in a cluster where machines stop; what matters is logged by this package.
	config.Logger = c.log.Named("memberlist").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})

	transport := o.Transport
	if transport == nil {
		var err error
		if transport, err = listen(dials, o, config); err != nil {
			return nil, err
		}
	}
	config.Transport = transport
	list, err := memberlist.Create(config)
	if err != nil {
		return nil, errors.Join(err, discard(transport))
	}
	return list, nil
}

// Run keeps joining the seeds until ctx ends, then says goodbye to the others, which takes up to half a second, and stops
// listening. A probe under way may outlive it by a few seconds, because memberlist doesn't wait for it.
func (c *Cluster) Run(ctx context.Context) error {
	var joins sync.WaitGroup
	for _, s := range c.seeds {
		joins.Go(func() { c.keepJoining(ctx, s) })
	}
	for ctx.Err() == nil {
		select {
		case s := <-c.fresh:
			joins.Go(func() { c.keepJoining(ctx, s) })
		case <-ctx.Done():
		}
	}
	if err := c.list.Leave(leaveTimeout); err != nil {
		c.log.Debug("left without having told everybody", "error", err)
	}
	c.stopDials()
	err := c.list.Shutdown()
	joins.Wait()
	if err != nil {
		return fmt.Errorf("stop membership: %w", err)
	}
	return nil
}

// Meet adds a seed while Run runs; one that is known already changes nothing. It waits until Run has taken it, or ctx ends.
func (c *Cluster) Meet(ctx context.Context, address string) error {
	seeds, err := parseSeeds([]string{address}, c.resolver)
	if err != nil {
		return err
	}
	c.mu.Lock()
	known := c.known[address]
	c.known[address] = true
	c.mu.Unlock()
	if known || address == c.local {
		return nil
	}
	select {
	case c.fresh <- seeds[0]:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Members returns those that are believed alive, this one included until it leaves, sorted by role, name and incarnation.
func (c *Cluster) Members() []Member {
	return c.table.snapshot()
}

// Changed returns a channel that is closed when Members next changes. To miss nothing, call it before Members.
func (c *Cluster) Changed() <-chan struct{} {
	return c.table.nextChange()
}

// LocalAddress returns the "ip:port" that others reach this member at.
func (c *Cluster) LocalAddress() string {
	return c.local
}

func (o Options) withDefaults() Options {
	defaultTo(&o.ProbeInterval, 500*time.Millisecond)
	defaultTo(&o.ProbeTimeout, 250*time.Millisecond)
	defaultTo(&o.SuspicionMult, 4)
	defaultTo(&o.PushPullInterval, 10*time.Second)
	defaultTo(&o.RejoinInterval, 3*time.Second)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return o
}

func defaultTo[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// validate returns the encoded metadata too, because its size is one of the limits.
func (o Options) validate() (metadata, error) {
	switch {
	case o.Name == "" || strings.Contains(o.Name, "/"):
		return nil, fmt.Errorf("member name %q: a name is needed, and without a slash", o.Name)
	case o.Incarnation == "":
		return nil, errors.New("the incarnation is empty: it has to be new at each start of the process")
	case len(gossipName(o.Name, o.Incarnation)) > maxGossipName:
		return nil, fmt.Errorf("name %q and incarnation %q have more than %d bytes together: shorten the name",
			o.Name, o.Incarnation, maxGossipName-1)
	case o.Role != Controller && o.Role != Worker:
		return nil, fmt.Errorf("role %q: only %q and %q are known", o.Role, Controller, Worker)
	}
	switch len(o.Key) {
	case 0, 16, 24, 32:
	default:
		return nil, fmt.Errorf("the gossip key has %d bytes: use 16, 24 or 32 (for AES-128, AES-192 or AES-256)", len(o.Key))
	}
	if min(o.ProbeInterval, o.ProbeTimeout, o.PushPullInterval, o.RejoinInterval, time.Duration(o.SuspicionMult)) < 0 {
		return nil, errors.New("an interval, timeout or multiplier is negative: use a positive one, or 0 for the default")
	}
	if o.ProbeTimeout >= o.ProbeInterval {
		return nil, fmt.Errorf("the probe timeout %v is not shorter than the probe interval %v: about half of it is good",
			o.ProbeTimeout, o.ProbeInterval)
	}
	return encodeMetadata(o.Role, o.Addresses)
}
