// Package controller is one replica of the controller: it answers clients and
// operators, passes what only the leader can do on to the leader, and does it
// when it leads.
//
// The pieces, and what each owns:
//
//	entry        where requests come in, and the bounds on what is held there
//	call         one request, from its arrival until its answer has left
//	route        where the leader is, and the link to it
//	peers        connections to the other replicas, and who they are
//	degraded     serving while there is no leader; outage: one time of that
//	formation    how an empty replica finds or founds its cluster
//	term         all that only a leader does, from its barrier to its end
//	upkeep       the cluster's version, and the comparison of all states
//	read         what control calls may show, and how current it is
//	replicas     who belongs to the cluster; snapshots: its state, saved and restored
//	dispatcher   the scheduler and the requests and actions in its hands
//	coordinator  wanted against actual: registry, loads, profiles, startup
//	session      a leader's connection to one worker
package controller

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/link"
	"github.com/orrery-project/orrery/internal/rpc"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// Log is the replicated log. raftnode.Node is one.
type Log interface {
	// Apply commits a command and returns what the state machine made of it.
	// errors.Is(err, NotApplied) tells whether it surely was not applied.
	Apply(ctx context.Context, command []byte) (result any, index uint64, err error)
	// Barrier returns when all that was committed before has been applied.
	Barrier(ctx context.Context) error
	// VerifyLeader returns nil when this replica still leads.
	VerifyLeader(ctx context.Context) error
}

// Leadership says who leads.
type Leadership interface {
	// Leader is the leader's replica id and raft address; empty when unknown.
	Leader() (id, address string)
	// LeaderChanged is closed when Leader may return something else.
	LeaderChanged() <-chan struct{}
	// Lead calls lead for each term that this replica wins, and joins it.
	Lead(ctx context.Context, lead func(ctx context.Context, term uint64)) error
	// Transfer hands leadership to the replica of that id, or to whichever is
	// best prepared.
	Transfer(ctx context.Context, to string) error
	// SuspectLeader says that the connection to the leader was lost.
	SuspectLeader()
}

// Server is one member of the raft configuration.
type Server struct {
	ID, Address string
	Voter       bool
}

// Membership changes and shows the raft configuration.
type Membership interface {
	Servers() []Server
	// Bootstrap founds a cluster of these servers.
	Bootstrap(servers []Server) error
	AddNonvoter(ctx context.Context, id, address string) error
	Promote(ctx context.Context, id, address string) error
	Remove(ctx context.Context, id string) error
}

// Consensus is this replica's part in the cluster's log.
type Consensus interface {
	Log
	Leadership
	Membership
	// ID is this replica's raft id, Address its raft address.
	ID() string
	Address() string
	// Progress is how far the log has come here.
	Progress() (term, commit, applied uint64)
	// LeaderHeard is how long ago a leader was last heard of, 0 when this
	// replica leads; false if never.
	LeaderHeard() (ago time.Duration, ever bool)
	// LostState says that this replica's store was damaged, and that it has
	// started anew: it may join a cluster, and found none.
	LostState() bool
}

// Member is somebody whom the gossip believes to be there.
type Member struct {
	Name, Incarnation, Role string
	// Session is the address of a worker's session listener, Peer that of a
	// controller's peer listener.
	Session, Peer string
	Gossip        string
}

// Gossip is a hint at who may be there.
type Gossip interface {
	Members() []Member
	// Changed is closed at the next change.
	Changed() <-chan struct{}
	// Meet says where a replica's gossip listens.
	Meet(ctx context.Context, address string) error
}

// Options describe a controller. All fields but the tunables are needed.
type Options struct {
	Name        string
	Version     string
	PeerAddress string
	// GossipAddress is where this replica's own gossip listens.
	GossipAddress string
	// Peers are the peer addresses of all configured replicas, this one
	// included.
	Peers []string
	// Bootstrap: while it is empty, this replica joins or founds a cluster by
	// itself.
	Bootstrap bool
	Consensus Consensus
	Replica   *fsm.Replica
	Gossip    Gossip
	Dial      rpc.DialFunc
	Logger    hclog.Logger

	MaxMessage   int
	LinkRequests int
	LinkBytes    int64
	Tunables     Tunables
}

// Tunables may be changed while the controller runs.
type Tunables struct {
	// LoadIdle is the quiet time after which profiling starts.
	LoadIdle time.Duration
	// InferBuffer is how long a request waits for the startup to end.
	InferBuffer time.Duration
	// LoadsPerWorker are in flight at once.
	LoadsPerWorker int
	// ProfileShare is how much of a device's time measurements may take while the
	// cluster serves, from above 0 to 1.
	ProfileShare float64
	// ProfileRefresh is the time between two looks at whether profiles have drifted;
	// 0: never.
	ProfileRefresh time.Duration
	// DefaultTimeout is for requests without deadline, timeout or SLO.
	DefaultTimeout time.Duration
	// HeldRequests and HeldBytes bound what this entry holds unanswered.
	HeldRequests int
	HeldBytes    int64
	// After DegradedAfter without a leader requests go straight to workers, for
	// DegradedFor; 0 is never.
	DegradedAfter, DegradedFor time.Duration
	// Heartbeat is the interval on sessions; HeartbeatMisses of them in a row
	// take a worker out of the schedule.
	Heartbeat       time.Duration
	HeartbeatMisses int
	// ConnectTimeout bounds the opening of a session.
	ConnectTimeout time.Duration
	// ResultGrace is how much later than expected a result may be before its
	// requests go elsewhere.
	ResultGrace time.Duration
	// CompareInterval is the time between two full comparisons with a worker.
	CompareInterval time.Duration
	// DeadAfter is the absence after which a worker is no longer waited for when
	// nobody listens at its address; LostAfter is that when nothing is known.
	DeadAfter, LostAfter time.Duration
	// ForgetAfter is the absence after which the registry forgets a worker.
	ForgetAfter time.Duration
	// NoLeaderTimeout is how long control calls wait for a leader.
	NoLeaderTimeout time.Duration
	// Policy names the scheduling policy that is used unless the cluster's settings
	// name one; empty is the default.
	Policy string
	// ScheduleAhead is how much work a device is given in advance.
	ScheduleAhead time.Duration
	// DigestInterval is the time between two comparisons of all replicas'
	// states.
	DigestInterval time.Duration
}

// Controller is one replica.
type Controller struct {
	options  Options
	log      hclog.Logger
	tunables atomic.Pointer[Tunables]
	// epoch is the origin of this process's scheduler.Instant.
	epoch time.Time

	peers     *peers
	route     *route
	entry     *entry
	formation *formation
	degraded  *degraded
	// workerMetrics are what this replica has seen of workers while it led.
	workerMetrics *workerMetrics
	// clients and followers are the accepting ends of links.
	clients, followers *link.Server
	// term is what this replica does while it leads; nil when it does not.
	term atomic.Pointer[term]
	// restoring is held by the one restore that may be in hand here: it takes
	// up to MaxMessage of memory.
	restoring sync.Mutex
	// stopping is closed when this replica begins to shut down.
	stopping chan struct{}
}

// New makes a controller. It does nothing until Run.
func New(options Options) *Controller {
	c := &Controller{
		options:  options,
		log:      options.Logger,
		epoch:    time.Now(),
		stopping: make(chan struct{}),
	}
	c.tunables.Store(&options.Tunables)
	c.peers = newPeers(options)
	c.route = newRoute(c)
	c.entry = newEntry(c)
	c.formation = newFormation(c)
	c.degraded = newDegraded(c)
	c.workerMetrics = newWorkerMetrics()
	linkOptions := link.Options{Name: options.Name}
	c.clients = link.NewServer(c.entry, linkOptions, options.LinkRequests, options.LinkBytes)
	c.followers = link.NewServer(forwarded{c}, linkOptions, options.LinkRequests, options.LinkBytes)
	return c
}

// Tune replaces the tunables.
func (c *Controller) Tune(t Tunables) { c.tunables.Store(&t) }

// RegisterInference puts what clients call on a listener's server.
func (c *Controller) RegisterInference(s grpc.ServiceRegistrar) {
	inferencepb.RegisterGRPCInferenceServiceServer(s, &inferenceService{c: c})
	exchangepb.RegisterExchangeServer(s, c.clients)
}

// RegisterControl puts what operators call on a listener's server.
func (c *Controller) RegisterControl(s grpc.ServiceRegistrar) {
	controlpb.RegisterControlServer(s, &controlService{c: c, digests: newShared()})
}

// RegisterPeer puts what other replicas call on a listener's server.
func (c *Controller) RegisterPeer(s grpc.ServiceRegistrar) {
	peerpb.RegisterPeerServer(s, &peerService{c: c})
	exchangepb.RegisterExchangeServer(s, c.followers)
}

// Run does this replica's part until ctx ends. Listeners must be up before and
// stay up until it returns; raft is closed after it.
//
// The end is graceful: leadership is handed over first, then requests that are
// in hand here are answered, for as long as drainTime allows.
func (c *Controller) Run(ctx context.Context) error {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() { _ = c.options.Consensus.Lead(running, c.lead) })
	wait.Go(func() { c.route.run(running) })
	wait.Go(func() { c.formation.run(running) })
	wait.Go(func() { c.degraded.run(running) })
	wait.Go(func() { c.introduce(running) })

	<-ctx.Done()
	c.drain()
	cancel()
	c.clients.Close()
	c.followers.Close()
	wait.Wait()
	c.entry.wait.Wait()
	c.peers.close()
	return nil
}

// introduceInterval is the pause between two rounds of introductions.
const introduceInterval = time.Second

// introduce asks the other replicas who they are until all have answered: so
// this one finds its way to whichever leads, and their gossips become one,
// without seeds of their own.
func (c *Controller) introduce(ctx context.Context) {
	met := map[string]bool{}
	for len(met) < len(c.peers.others()) {
		for address, who := range c.peers.identify(ctx) {
			if !met[address] && c.options.Gossip.Meet(ctx, who.GossipAddress) == nil {
				met[address] = true
			}
		}
		if pause(ctx, introduceInterval) != nil {
			return
		}
	}
}

// drainTime bounds the wait for requests in hand at the end.
const drainTime = 1200 * time.Millisecond

// drain hands leadership over and answers what is in hand.
func (c *Controller) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	close(c.stopping)
	if c.term.Load() != nil && len(c.options.Consensus.Servers()) > 1 {
		if err := c.options.Consensus.Transfer(ctx, ""); err != nil {
			c.log.Warn("leadership was not handed over", "error", err)
		} else {
			c.log.Info("leadership handed over")
		}
	}
	c.clients.Refuse()
	c.entry.drain(ctx)
}

// newRequestID makes an id that no other request has.
func newRequestID() string { return rand.Text() }
