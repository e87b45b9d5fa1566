package configs

import (
	"cmp"
	"time"
)

// Controller is the configuration of one controller replica. Build one with [DefaultController] or [LoadController].
type Controller struct {
	// Name is how operators tell the replicas apart; unique among them.
	Name string `yaml:"name"`
	// DataDir holds the replicated log, the snapshots and the replica's identity.
	DataDir string           `yaml:"data_dir"`
	Listen  ControllerListen `yaml:"listen"`
	// Expose names the listeners that may bind an address other than loopback.
	Expose []string `yaml:"expose"`
	// Advertise is as written; [Controller.Advertised] fills in what was left out.
	Advertise ControllerAdvertise `yaml:"advertise"`
	Cluster   ControllerCluster   `yaml:"cluster"`
	Raft      Raft                `yaml:"raft"`
	Startup   Startup             `yaml:"startup"`
	Inference Inference           `yaml:"inference"`
	Workers   Workers             `yaml:"workers"`
	Scheduler Scheduler           `yaml:"scheduler"`
	Control   Control             `yaml:"control"`
	Log       Log                 `yaml:"log"`
	// ShutdownTimeout is how long an orderly stop may take before the rest is cut off.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
}

// ControllerListen is the address that each listener of a controller binds.
type ControllerListen struct {
	Inference Address `yaml:"inference"`
	HTTP      Address `yaml:"http"`
	Control   Address `yaml:"control"`
	Peer      Address `yaml:"peer"`
	Raft      Address `yaml:"raft"`
	Gossip    Address `yaml:"gossip"`
}

// ControllerAdvertise is the address at which others dial each listener; empty means the address it binds.
type ControllerAdvertise struct {
	Inference Address `yaml:"inference"`
	Control   Address `yaml:"control"`
	Peer      Address `yaml:"peer"`
	Raft      Address `yaml:"raft"`
	Gossip    Address `yaml:"gossip"`
}

// ControllerCluster says who the other members are.
type ControllerCluster struct {
	// Controllers are the advertised peer addresses of all replicas, this one among them.
	Controllers []Address `yaml:"controllers"`
	// Bootstrap says whether an empty replica may found or join a cluster by itself; if not, it waits for an operator.
	Bootstrap bool `yaml:"bootstrap"`
	// GossipSeeds are members to join through; a controller also finds the others by Controllers.
	GossipSeeds []Address `yaml:"gossip_seeds"`
	// GossipKeyFile is the path of the gossip encryption key, for [ReadGossipKey]; empty means no encryption.
	GossipKeyFile string `yaml:"gossip_key_file"`
}

// Raft is the timing of consensus and the size of its log.
type Raft struct {
	HeartbeatTimeout time.Duration `yaml:"heartbeat_timeout"`
	ElectionTimeout  time.Duration `yaml:"election_timeout"`
	LeaderLease      time.Duration `yaml:"leader_lease"`
	CommitTimeout    time.Duration `yaml:"commit_timeout"`
	// SnapshotThreshold is the number of log entries since the last snapshot that make a new one due.
	SnapshotThreshold uint64        `yaml:"snapshot_threshold"`
	SnapshotInterval  time.Duration `yaml:"snapshot_interval"`
	// TrailingLogs is the number of log entries kept behind a snapshot for followers that lag.
	TrailingLogs uint64 `yaml:"trailing_logs"`
	// LeaderWriteLimit and FollowerWriteLimit are how long one write to disk may take before the process stops itself.
	LeaderWriteLimit   time.Duration `yaml:"leader_write_limit"`
	FollowerWriteLimit time.Duration `yaml:"follower_write_limit"`
	// DigestInterval is the time between two comparisons of all replicas' states.
	DigestInterval time.Duration `yaml:"digest_interval" reload:"live"`
}

// Startup sets the phases before the schedule runs.
type Startup struct {
	// LoadIdle is the countdown without a new load request after which profiling begins.
	LoadIdle time.Duration `yaml:"load_idle"`
	// InferBuffer is how long an infer request waits for the schedule to begin.
	InferBuffer time.Duration `yaml:"infer_buffer" reload:"live"`
	// LoadsPerWorker is the number of models that one worker loads at a time.
	LoadsPerWorker int `yaml:"loads_per_worker" reload:"live"`
	// ProfileShare is how much of a device's time measurements may take while the cluster serves: above 0, at most 1.
	ProfileShare float64 `yaml:"profile_share" reload:"live"`
	// ProfileRefresh is how often profiles are compared with what is measured while serving, and written again if they have
	// drifted; 0: never.
	ProfileRefresh time.Duration `yaml:"profile_refresh" reload:"live"`
}

// Inference sets what the entry of a request admits and holds.
type Inference struct {
	// DefaultTimeout ends a request that has neither a deadline nor an SLO.
	DefaultTimeout time.Duration `yaml:"default_timeout" reload:"live"`
	// MaxMessage is the largest request or answer, and the gRPC message limit.
	MaxMessage Bytes `yaml:"max_message"`
	// HeldRequests and HeldBytes bound what is held at this entry while there is no leader or no schedule.
	HeldRequests int   `yaml:"held_requests" reload:"live"`
	HeldBytes    Bytes `yaml:"held_bytes" reload:"live"`
	// LinkRequests and LinkBytes are the credit granted to one stream of a follower or a client.
	LinkRequests int   `yaml:"link_requests"`
	LinkBytes    Bytes `yaml:"link_bytes"`
	// After DegradedAfter without a leader, requests go straight to workers, for DegradedFor; 0 means never.
	DegradedAfter time.Duration `yaml:"degraded_after" reload:"live"`
	DegradedFor   time.Duration `yaml:"degraded_for" reload:"live"`
}

// Workers sets how the leader watches its workers.
type Workers struct {
	// A worker that is silent for HeartbeatInterval times HeartbeatMisses is taken out of the schedule.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	HeartbeatMisses   int           `yaml:"heartbeat_misses"`
	ConnectTimeout    time.Duration `yaml:"connect_timeout" reload:"live"`
	// A result that is later than expected by ResultGrace, and by three times what it should take, is overdue: its
	// requests go elsewhere.
	ResultGrace time.Duration `yaml:"result_grace"`
	// CompareInterval is the time between two full comparisons of what the leader believes with what a worker says.
	CompareInterval time.Duration `yaml:"compare_interval" reload:"live"`
	// DeadAfter is the absence after which a worker is no longer waited for when nobody listens at its address;
	// LostAfter is that when nothing is known.
	DeadAfter time.Duration `yaml:"dead_after" reload:"live"`
	LostAfter time.Duration `yaml:"lost_after" reload:"live"`
	// ForgetAfter is the absence after which a worker is taken out of the registry.
	ForgetAfter time.Duration `yaml:"forget_after" reload:"live"`
}

// Scheduler selects the policy and its horizon.
type Scheduler struct {
	Policy string `yaml:"policy"`
	// ScheduleAhead is how far ahead of its start an action is sent to a worker.
	ScheduleAhead time.Duration `yaml:"schedule_ahead"`
}

// Control sets the behaviour of the operators' interface.
type Control struct {
	// NoLeaderTimeout is how long there may be no leader before control calls are refused.
	NoLeaderTimeout time.Duration `yaml:"no_leader_timeout" reload:"live"`
}

// Log sets what is logged, and how.
type Log struct {
	Level  string `yaml:"level" reload:"live"` // trace, debug, info, warn or error
	Format string `yaml:"format"`              // text or json
}

// DefaultController returns the defaults. Name, DataDir and Cluster.Controllers have none and must be set.
func DefaultController() Controller {
	return Controller{
		Listen: ControllerListen{
			Inference: "127.0.0.1:8001",
			HTTP:      "127.0.0.1:8000",
			Control:   "127.0.0.1:8010",
			Peer:      "127.0.0.1:8011",
			Raft:      "127.0.0.1:8012",
			Gossip:    "127.0.0.1:7946",
		},
		Cluster: ControllerCluster{Bootstrap: true},
		Raft: Raft{
			HeartbeatTimeout:   500 * time.Millisecond,
			ElectionTimeout:    500 * time.Millisecond,
			LeaderLease:        200 * time.Millisecond,
			CommitTimeout:      20 * time.Millisecond,
			SnapshotThreshold:  8192,
			SnapshotInterval:   2 * time.Minute,
			TrailingLogs:       10240,
			LeaderWriteLimit:   2 * time.Second,
			FollowerWriteLimit: 10 * time.Second,
			DigestInterval:     time.Minute,
		},
		Startup: Startup{
			LoadIdle:       10 * time.Second,
			InferBuffer:    10 * time.Second,
			LoadsPerWorker: 4,
			ProfileShare:   0.1,
			ProfileRefresh: time.Minute,
		},
		Inference: Inference{
			DefaultTimeout: 30 * time.Second,
			MaxMessage:     64 * MiB,
			HeldRequests:   10000,
			HeldBytes:      256 * MiB,
			LinkRequests:   10000,
			LinkBytes:      256 * MiB,
			DegradedAfter:  2 * time.Second,
			DegradedFor:    10 * time.Minute,
		},
		Workers: Workers{
			HeartbeatInterval: 100 * time.Millisecond,
			HeartbeatMisses:   4,
			ConnectTimeout:    2 * time.Second,
			ResultGrace:       400 * time.Millisecond,
			CompareInterval:   3 * time.Second,
			DeadAfter:         time.Second,
			LostAfter:         10 * time.Second,
			ForgetAfter:       24 * time.Hour,
		},
		Scheduler:       Scheduler{Policy: "orrery", ScheduleAhead: 5 * time.Millisecond},
		Control:         Control{NoLeaderTimeout: 2 * time.Second},
		Log:             defaultLog(),
		ShutdownTimeout: 2 * time.Second,
	}
}

// Advertised returns the address at which others dial each listener: the one in Advertise, else the one it binds.
func (c *Controller) Advertised() ControllerAdvertise {
	return ControllerAdvertise{
		Inference: cmp.Or(c.Advertise.Inference, c.Listen.Inference),
		Control:   cmp.Or(c.Advertise.Control, c.Listen.Control),
		Peer:      cmp.Or(c.Advertise.Peer, c.Listen.Peer),
		Raft:      cmp.Or(c.Advertise.Raft, c.Listen.Raft),
		Gossip:    cmp.Or(c.Advertise.Gossip, c.Listen.Gossip),
	}
}

func (*Controller) kind() string { return "controller" }

func defaultLog() Log { return Log{Level: "info", Format: "text"} }
