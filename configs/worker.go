package configs

import (
	"cmp"
	"time"
)

// Worker is the configuration of one worker daemon. Build one with [DefaultWorker] or [LoadWorker].
type Worker struct {
	// Name is stable over restarts; unique among the workers.
	Name   string       `yaml:"name"`
	Listen WorkerListen `yaml:"listen"`
	// Expose names the listeners that may bind an address other than loopback.
	Expose []string `yaml:"expose"`
	// Advertise is as written; [Worker.Advertised] fills in what was left out.
	Advertise WorkerAdvertise `yaml:"advertise"`
	Cluster   WorkerCluster   `yaml:"cluster"`
	// ModelDir is the folder that models are loaded from.
	ModelDir string `yaml:"model_dir"`
	// HostMemory is the budget for models held in the memory of the host.
	HostMemory Bytes    `yaml:"host_memory"`
	Devices    []Device `yaml:"devices"`
	Engines    Engines  `yaml:"engines"`
	// Labels are told to the controllers for the placement of copies.
	Labels map[string]string `yaml:"labels"`
	// Speed is relative to other workers: 2 takes twice the share of 1.
	Speed float64 `yaml:"speed"`
	Log   Log     `yaml:"log"`
	// ShutdownTimeout is how long an orderly stop may take before the rest is cut off.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
}

// WorkerListen is the address that each listener of a worker binds.
type WorkerListen struct {
	Session Address `yaml:"session"`
	HTTP    Address `yaml:"http"`
	Gossip  Address `yaml:"gossip"`
}

// WorkerAdvertise is the address at which others dial each listener; empty means the address it binds.
type WorkerAdvertise struct {
	Session Address `yaml:"session"`
	Gossip  Address `yaml:"gossip"`
}

// WorkerCluster says how a worker finds the controllers.
type WorkerCluster struct {
	// GossipSeeds are members to join through, at least one; usually all controllers.
	GossipSeeds []Address `yaml:"gossip_seeds"`
	// GossipKeyFile is the path of the gossip encryption key, for [ReadGossipKey]; empty means no encryption.
	GossipKeyFile string `yaml:"gossip_key_file"`
}

// Device is one GPU, or the CPU.
type Device struct {
	// Kind is a free name; devices of the same kind, on any worker, share their profiles.
	Kind string `yaml:"kind"`
	// WeightsCache is the memory for weights on this device, given out in whole pages of PageSize.
	WeightsCache Bytes `yaml:"weights_cache"`
	PageSize     Bytes `yaml:"page_size"`
	// Engines names the engines that may run on this device: gomlx, emulated.
	Engines []string `yaml:"engines"`
}

// Engines holds the settings of each engine; they matter only where a device names the engine.
type Engines struct {
	GoMLX    GoMLX    `yaml:"gomlx"`
	Emulated Emulated `yaml:"emulated"`
}

// GoMLX sets the engine that compiles and runs models in the process of the worker.
type GoMLX struct {
	// BatchRows are the row counts that a model is compiled for; a batch is padded to the next of them.
	BatchRows []int `yaml:"batch_rows"`
}

// Emulated sets the engine that only pretends to run models.
type Emulated struct {
	// Jitter is the share of a profiled time by which an execution may be off, from 0 to 1.
	Jitter float64 `yaml:"jitter"`
	// Slowdown is how many times longer everything on a device takes than its profile says, from 0.001 to 1000.
	Slowdown float64 `yaml:"slowdown"`
	// FailureRate is the share of executions that fail, from 0 to 1.
	FailureRate float64 `yaml:"failure_rate"`
	// AllowCommands lets requests command the engine to be slow, to fail or to end the process, and tables have models that
	// do so.
	AllowCommands bool `yaml:"allow_commands"`
	// Seed makes jitter and failures repeatable.
	Seed uint64 `yaml:"seed"`
}

// DefaultWorker returns the defaults. Name, ModelDir, Cluster.GossipSeeds and Devices have none and must be set.
func DefaultWorker() Worker {
	return Worker{
		Listen: WorkerListen{
			Session: "127.0.0.1:8020",
			HTTP:    "127.0.0.1:8021",
			Gossip:  "127.0.0.1:7947",
		},
		HostMemory:      4 * GiB,
		Engines:         Engines{GoMLX: GoMLX{BatchRows: []int{1, 2, 4, 8, 16}}, Emulated: Emulated{Slowdown: 1}},
		Speed:           1,
		Log:             defaultLog(),
		ShutdownTimeout: 2 * time.Second,
	}
}

// DefaultDevice returns the defaults of an entry of Devices. Kind has none and must be set.
func DefaultDevice() Device {
	return Device{WeightsCache: 512 * MiB, PageSize: 16 * MiB, Engines: []string{"gomlx"}}
}

// Advertised returns the address at which others dial each listener: the one in Advertise, else the one it binds.
func (w *Worker) Advertised() WorkerAdvertise {
	return WorkerAdvertise{
		Session: cmp.Or(w.Advertise.Session, w.Listen.Session),
		Gossip:  cmp.Or(w.Advertise.Gossip, w.Listen.Gossip),
	}
}

func (*Worker) kind() string { return "worker" }

func (d *Device) setDefaults() { *d = DefaultDevice() }
