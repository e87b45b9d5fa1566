package configs

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Scenario is what `orrery simulate --scenario` plays: a fleet, models and workloads. Its sample scenario.yaml lists every key.
type Scenario struct {
	Name string `yaml:"name"`
	// Seed is what all chance follows from.
	Seed uint64 `yaml:"seed"`
	// Duration is how long clients send; Warmup the part of it that is not in the figures.
	Duration time.Duration `yaml:"duration"`
	Warmup   time.Duration `yaml:"warmup"`
	// Policies are played one after the other and compared.
	Policies []string `yaml:"policies"`
	// ScheduleAhead and NetworkLag are the policies' settings; 0 means their defaults.
	ScheduleAhead time.Duration `yaml:"schedule_ahead"`
	NetworkLag    time.Duration `yaml:"network_lag"`

	Network ScenarioNetwork `yaml:"network"`
	// ExecutionJitter is the share by which execution times vary at most to either side.
	ExecutionJitter float64 `yaml:"execution_jitter"`
	// ExecutionOverhead is what each batch takes beside that; the policy is not told.
	ExecutionOverhead time.Duration `yaml:"execution_overhead"`
	// Silence is after how long a frozen worker is taken for lost.
	Silence time.Duration `yaml:"silence"`
	// Profiles is the CSV file of the models' times, as for the emulated engine, relative to the scenario's folder; empty is the one
	// that is built in: models/profiles.csv.
	Profiles string `yaml:"profiles"`

	Models        []ScenarioModel        `yaml:"models"`
	Workers       []ScenarioWorkers      `yaml:"workers"`
	Workloads     []ScenarioWorkload     `yaml:"workloads"`
	Failures      []ScenarioFailure      `yaml:"failures"`
	Slowdowns     []ScenarioSlowdown     `yaml:"slowdowns"`
	LeaderChanges []ScenarioLeaderChange `yaml:"leader_changes"`
	Timeline      ScenarioTimeline       `yaml:"timeline"`
}

// ScenarioNetwork is the way between the controller and each worker, one way.
type ScenarioNetwork struct {
	Delay  time.Duration `yaml:"delay"`
	Jitter time.Duration `yaml:"jitter"`
}

// ScenarioModel is one model, or several alike: copies of resnet are called resnet-1, resnet-2, …
type ScenarioModel struct {
	Name   string `yaml:"name"`
	Copies int    `yaml:"copies"`
	// Profile is its row of the table on all kinds of devices but those in Profiles, which has rows by kind.
	Profile  string            `yaml:"profile"`
	Profiles map[string]string `yaml:"profiles"`
	// MaxRows is the largest batch; 0 means the largest of the profile.
	MaxRows int `yaml:"max_rows"`
	// Batched: requests may run together.
	Batched bool `yaml:"batched"`
	// Pinned is on how many devices its weights are to stay, of each copy; 0: it is not pinned.
	Pinned int `yaml:"pinned"`
}

// ScenarioWorkers is so many workers alike. Those of w are called w1, w2, …
type ScenarioWorkers struct {
	Name    string `yaml:"name"`
	Count   int    `yaml:"count"`
	Devices int    `yaml:"devices"` // of each
	Kind    string `yaml:"kind"`
	Pages   int    `yaml:"pages"`
	Page    Bytes  `yaml:"page"`
	// Slowdown is how many times longer than the profile everything takes there; the policy is not told. Speed is what it is told.
	Slowdown float64 `yaml:"slowdown"`
	Speed    float64 `yaml:"speed"`
	// Models are names of models that they hold; none means all.
	Models []string `yaml:"models"`
}

// ScenarioWorkload is a stream of like requests.
type ScenarioWorkload struct {
	Name string `yaml:"name"`
	// Models are names of models that are asked; none means all. Zipf is the exponent of their popularity.
	Models []string `yaml:"models"`
	Zipf   float64  `yaml:"zipf"`
	// Growth adds a model each time so much has passed; 0 asks all from the beginning.
	Growth   time.Duration `yaml:"growth"`
	SLO      time.Duration `yaml:"slo"` // 0: no deadline
	Priority uint64        `yaml:"priority"`
	Tenant   string        `yaml:"tenant"`
	Rows     int           `yaml:"rows"`
	Start    time.Duration `yaml:"start"`
	Stop     time.Duration `yaml:"stop"` // 0: the end

	// Arrivals is closed, poisson, gamma, trace, functions or synthetic-functions; the keys below are those that one of them needs.
	Arrivals string        `yaml:"arrivals"`
	InFlight int           `yaml:"in_flight"` // closed: of each model
	Think    time.Duration `yaml:"think"`     // closed: the pause after an answer
	Rate     float64       `yaml:"rate"`      // poisson, gamma, synthetic-functions: requests a second
	CV       float64       `yaml:"cv"`        // gamma: the coefficient of variation
	File     string        `yaml:"file"`      // trace, functions: relative to the scenario's folder
	Speed    float64       `yaml:"speed"`     // trace, functions: how many times as often requests come
}

// ScenarioFailure takes a worker away: it dies, or freezes.
type ScenarioFailure struct {
	Worker string        `yaml:"worker"`
	At     time.Duration `yaml:"at"`
	For    time.Duration `yaml:"for"` // 0: for ever
	Freeze bool          `yaml:"freeze"`
}

// ScenarioSlowdown makes devices slower from an instant on.
type ScenarioSlowdown struct {
	Worker string        `yaml:"worker"`
	Device int           `yaml:"device"` // -1: all of the worker's
	At     time.Duration `yaml:"at"`
	Factor float64       `yaml:"factor"`
}

// ScenarioLeaderChange replaces the policy by a fresh one, after a time without any.
type ScenarioLeaderChange struct {
	At  time.Duration `yaml:"at"`
	Gap time.Duration `yaml:"gap"`
}

// ScenarioTimeline says of which part of the run what each device did is shown.
type ScenarioTimeline struct {
	From time.Duration `yaml:"from"`
	For  time.Duration `yaml:"for"`
}

// DefaultScenario returns the defaults. Models, Workers and Workloads have none and must be set.
func DefaultScenario() Scenario {
	return Scenario{
		Name: "scenario", Seed: 1, Duration: 30 * time.Second, Policies: []string{"orrery"},
		Network: ScenarioNetwork{Delay: time.Millisecond, Jitter: 200 * time.Microsecond},
		Silence: 400 * time.Millisecond, Timeline: ScenarioTimeline{For: time.Second},
	}
}

func (m *ScenarioModel) setDefaults() { m.Copies, m.Batched = 1, true }

func (w *ScenarioWorkers) setDefaults() {
	*w = ScenarioWorkers{Name: "w", Count: 1, Devices: 1, Kind: "gpu", Pages: 1400, Page: 16 * MiB, Slowdown: 1, Speed: 1}
}

func (l *ScenarioWorkload) setDefaults() { l.Rows, l.Speed, l.CV = 1, 1, 1 }

func (s *ScenarioSlowdown) setDefaults() { s.Device = -1 }

func (s *Scenario) kind() string { return "simulation" }

// LoadScenario reads and validates a scenario. Unless the file can't be read, the error is [Problems].
func LoadScenario(path string) (*Scenario, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseScenario(path, data)
}

// ParseScenario is [LoadScenario] for what is already in memory; name stands for the file in messages.
func ParseScenario(name string, data []byte) (*Scenario, error) {
	s := DefaultScenario()
	if err := parse(&s, name, data, nil); err != nil {
		return nil, err
	}
	return &s, nil
}

// arrivalKeys are the keys that each kind of arrivals needs.
func arrivalKeys() map[string]string {
	return map[string]string{"closed": "in_flight", "poisson": "rate", "gamma": "rate", "trace": "file", "functions": "file", "synthetic-functions": "rate"}
}

// Validate reports everything that is wrong with the form, as [Problems]. What the parts say of each other is checked when they are
// put together.
func (s *Scenario) Validate() error {
	var k checker
	atLeast(&k, "duration", s.Duration, time.Millisecond)
	atLeast(&k, "warmup", s.Warmup, 0)
	if s.Warmup >= s.Duration {
		k.report("warmup", "make it shorter than the duration", "%v is not less than %v", s.Warmup, s.Duration)
	}
	if len(s.Policies) == 0 {
		k.report("policies", "list at least one, for example [orrery]", "is required")
	}
	atLeast(&k, "schedule_ahead", s.ScheduleAhead, 0)
	atLeast(&k, "network_lag", s.NetworkLag, 0)
	within(&k, "network.jitter", s.Network.Jitter, 0, s.Network.Delay)
	atLeast(&k, "execution_overhead", s.ExecutionOverhead, 0)
	within(&k, "execution_jitter", s.ExecutionJitter, 0, 1)
	atLeast(&k, "silence", s.Silence, time.Millisecond)
	atLeast(&k, "timeline.from", s.Timeline.From, 0)
	atLeast(&k, "timeline.for", s.Timeline.For, 0)
	for _, list := range []struct {
		path, example string
		n             int
	}{
		{"models", "[{name: resnet, profile: resnet50_v2}]", len(s.Models)}, {"workers", "[{count: 2}]", len(s.Workers)},
		{"workloads", "[{name: steady, arrivals: poisson, rate: 100}]", len(s.Workloads)},
	} {
		if list.n == 0 {
			k.report(list.path, "list at least one, for example "+list.example, "is required")
		}
	}
	for i, m := range s.Models {
		k.scenarioModel(fmt.Sprintf("models[%d]", i), m)
	}
	for i, w := range s.Workers {
		path := fmt.Sprintf("workers[%d]", i)
		k.required(path+".name", w.Name, "w")
		atLeast(&k, path+".count", w.Count, 1)
		atLeast(&k, path+".devices", w.Devices, 1)
		atLeast(&k, path+".pages", w.Pages, 0)
		atLeast(&k, path+".page", w.Page, leastPage)
		within(&k, path+".slowdown", w.Slowdown, 0.001, 1000)
		within(&k, path+".speed", w.Speed, 0.001, 1000)
	}
	for i, l := range s.Workloads {
		k.scenarioWorkload(fmt.Sprintf("workloads[%d]", i), l)
	}
	for i, f := range s.Failures {
		k.required(fmt.Sprintf("failures[%d].worker", i), f.Worker, "w1")
	}
	for i, f := range s.Slowdowns {
		k.required(fmt.Sprintf("slowdowns[%d].worker", i), f.Worker, "w1")
		within(&k, fmt.Sprintf("slowdowns[%d].factor", i), f.Factor, 0.001, 1000)
	}
	return k.problems.err()
}

func (k *checker) required(path, value, example string) {
	if value == "" {
		k.report(path, "write for example "+example, "is required")
	}
}

func (k *checker) scenarioModel(path string, m ScenarioModel) {
	k.required(path+".name", m.Name, "resnet")
	atLeast(k, path+".copies", m.Copies, 1)
	within(k, path+".max_rows", m.MaxRows, 0, maxBatchRows)
	within(k, path+".pinned", m.Pinned, 0, maxPinned)
	if m.Profile == "" && len(m.Profiles) == 0 {
		k.report(path+".profile", "write the name of a row of the table, for example resnet50_v2", "is required")
	}
	for _, kind := range slices.Sorted(maps.Keys(m.Profiles)) {
		k.required(path+".profiles."+kind, m.Profiles[kind], "resnet50_v2")
	}
}

func (k *checker) scenarioWorkload(path string, l ScenarioWorkload) {
	k.required(path+".name", l.Name, "steady")
	k.oneOf(path+".arrivals", l.Arrivals, slices.Sorted(maps.Keys(arrivalKeys()))...)
	switch arrivalKeys()[l.Arrivals] {
	case "in_flight":
		atLeast(k, path+".in_flight", l.InFlight, 1)
	case "rate":
		within(k, path+".rate", l.Rate, 1e-6, 1e9)
	case "file":
		k.required(path+".file", l.File, "arrivals.csv")
	}
	within(k, path+".rows", l.Rows, 1, maxBatchRows)
	within(k, path+".zipf", l.Zipf, 0, 10)
	within(k, path+".cv", l.CV, 0.01, 1000)
	within(k, path+".speed", l.Speed, 1e-6, 1e6)
	atLeast(k, path+".slo", l.SLO, 0)
	atLeast(k, path+".think", l.Think, 0)
	atLeast(k, path+".growth", l.Growth, 0)
	atLeast(k, path+".start", l.Start, 0)
	atLeast(k, path+".stop", l.Stop, 0)
}
