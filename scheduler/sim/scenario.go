package sim

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/orrery-project/orrery/scheduler"
)

// Scenario is everything that a run follows from, but for the policy.
type Scenario struct {
	Name string
	Seed uint64
	// Duration is how long clients send; what they have sent is then answered.
	Duration time.Duration
	// Warmup is the part of Duration whose requests are not in the figures.
	Warmup time.Duration

	Network Network
	// ExecutionJitter is the share, from 0 to 1, by which execution times vary
	// at most to either side; they are distributed uniformly.
	ExecutionJitter float64
	// ExecutionOverhead is what every batch takes beside its time in the profile,
	// which the policy is not told: what timers and copies add on real machines.
	ExecutionOverhead time.Duration
	// Silence is after how long a frozen worker is taken for lost. Default
	// 400 ms: four heartbeats of 100 ms.
	Silence time.Duration

	Models    []Model
	Workers   []Worker
	Workloads []Workload

	Failures      []Failure
	Slowdowns     []Slowdown
	LeaderChanges []LeaderChange
	Timeline      Timeline
	// Narrator, if not nil, is told everything that happens, line by line.
	Narrator func(at time.Duration, line string)
	// Stopped, if not nil, is asked now and then whether to give up, with
	// ErrStopped.
	Stopped func() bool
}

// ErrStopped is a run that was given up because Stopped said so.
var ErrStopped = errors.New("the simulation was stopped")

// Network is the way between the controller and each worker, one way.
// Messages of one direction of one worker never overtake each other.
type Network struct {
	Delay time.Duration
	// Jitter is how much a delay differs at most, to either side, uniformly.
	Jitter time.Duration
}

// Model is a model and how long it takes.
type Model struct {
	Name         string
	WeightsBytes int64
	// MaxRows is the largest batch; 0 means the largest of the profiles.
	MaxRows int
	// Alone says that requests never run together.
	Alone bool
	// Pinned is on how many devices its weights are to stay.
	Pinned int
	// Profiles are by kind of device. One with an empty Kind is for all others.
	Profiles []Profile
}

// Profile is how long a model takes on a kind of device. Between two of its
// entries a batch takes a time on the straight line between theirs, as in the
// emulated engine.
type Profile struct {
	Kind        string
	WeightsLoad time.Duration
	// Execution ascends by rows and has at least one entry.
	Execution []scheduler.RowsTime
}

// Worker is a worker that is there from the beginning.
type Worker struct {
	Name    string
	Devices []Device
	// Holds are indices of models in its host memory; nil means all.
	Holds []int
	// Speed is what the policy is told. Default 1.
	Speed float64
}

// Device is a device of a worker.
type Device struct {
	Kind      string
	Pages     int
	PageBytes int64
	// Slowdown is how many times longer than the profile everything takes
	// here, which the policy is not told. Default 1.
	Slowdown float64
}

// Failure takes a worker away.
type Failure struct {
	Worker string
	At     time.Duration
	// For is after how long it is back, 0 never. One that died comes back with
	// its models in host memory and no weights on its devices.
	For time.Duration
	// Freeze: it does not die but stands still, and its connection stays open.
	Freeze bool
}

// Slowdown makes a device slower, or faster, from an instant on.
type Slowdown struct {
	Worker string
	// Device is its index; -1 means all of the worker's.
	Device int
	At     time.Duration
	// Factor replaces that of the device and of earlier slowdowns.
	Factor float64
}

// LeaderChange replaces the policy by a fresh one.
type LeaderChange struct {
	At time.Duration
	// Gap is how long there is no leader. Requests are held meanwhile.
	Gap time.Duration
}

// Timeline says of which part of the run what each device did is kept.
type Timeline struct {
	From, For time.Duration
	// Limit is the most spans that are kept, of all devices together.
	Limit int
}

func (s *Scenario) check() error {
	switch {
	case s.Duration <= 0:
		return fmt.Errorf("the duration is %v: it must be above 0", s.Duration)
	case s.Warmup < 0 || s.Warmup >= s.Duration:
		return fmt.Errorf("the warm-up is %v: it must be shorter than the duration, %v", s.Warmup, s.Duration)
	case s.Network.Delay < 0 || s.Network.Jitter < 0 || s.Network.Jitter > s.Network.Delay:
		return fmt.Errorf("the network is %v ± %v: neither can be negative, and the jitter not above the delay", s.Network.Delay, s.Network.Jitter)
	case !(s.ExecutionJitter >= 0 && s.ExecutionJitter <= 1):
		return fmt.Errorf("the jitter of executions is %v: it is a share from 0 to 1", s.ExecutionJitter)
	case s.ExecutionOverhead < 0:
		return fmt.Errorf("the overhead of executions is %v: it can't be negative", s.ExecutionOverhead)
	case len(s.Models) == 0 || len(s.Workers) == 0 || len(s.Workloads) == 0:
		return errors.New("there must be at least one model, one worker and one workload")
	}
	var errs []error
	for i := range s.Models {
		errs = append(errs, s.Models[i].check())
	}
	names := map[string]bool{}
	for i := range s.Workers {
		errs = append(errs, s.checkWorker(&s.Workers[i], names))
	}
	for i := range s.Workloads {
		if err := s.Workloads[i].check(len(s.Models)); err != nil {
			errs = append(errs, fmt.Errorf("workload %s: %w", s.Workloads[i].Name, err))
		}
	}
	return errors.Join(append(errs, s.checkFaults(names)...)...)
}

func (m *Model) check() error {
	if len(m.Profiles) == 0 {
		return fmt.Errorf("model %s has no profile", m.Name)
	}
	if m.WeightsBytes < 0 || m.MaxRows < 0 || m.Pinned < 0 {
		return fmt.Errorf("model %s: neither the size of its weights nor that of its batches nor its pins can be negative", m.Name)
	}
	for _, p := range m.Profiles {
		last := 0
		for _, e := range p.Execution {
			if e.Rows <= last || e.Time <= 0 {
				return fmt.Errorf("model %s: its times must ascend by rows and be above 0", m.Name)
			}
			last = e.Rows
		}
		if last == 0 || p.WeightsLoad < 0 {
			return fmt.Errorf("model %s: its profile for %q has no execution time, or a negative load time", m.Name, p.Kind)
		}
	}
	return nil
}

// largest is the largest batch of a model.
func (m *Model) largest() int {
	if m.MaxRows > 0 {
		return m.MaxRows
	}
	most := 0
	for _, p := range m.Profiles {
		most = max(most, p.Execution[len(p.Execution)-1].Rows)
	}
	return most
}

// profile is that for a kind of device, nil if there is none.
func (m *Model) profile(kind string) *Profile {
	var other *Profile
	for i := range m.Profiles {
		switch m.Profiles[i].Kind {
		case kind:
			return &m.Profiles[i]
		case "":
			other = &m.Profiles[i]
		}
	}
	return other
}

// time is what a batch of so many rows takes.
func (p *Profile) time(rows int) time.Duration {
	all := p.Execution
	i := 0
	for i < len(all) && all[i].Rows < rows {
		i++
	}
	switch {
	case i == len(all):
		// Beyond the table it goes on in proportion.
		last := all[i-1]
		return time.Duration(float64(last.Time) * float64(rows) / float64(last.Rows))
	case i == 0 || all[i].Rows == rows:
		return all[i].Time
	}
	below, above := all[i-1], all[i]
	slope := float64(above.Time-below.Time) / float64(above.Rows-below.Rows)
	return below.Time + time.Duration(math.Round(slope*float64(rows-below.Rows)))
}

func (s *Scenario) checkWorker(w *Worker, names map[string]bool) error {
	if w.Name == "" || names[w.Name] {
		return fmt.Errorf("worker %q: each needs a name of its own", w.Name)
	}
	names[w.Name] = true
	if len(w.Devices) == 0 {
		return fmt.Errorf("worker %s has no device", w.Name)
	}
	for _, d := range w.Devices {
		if d.Pages < 0 || d.PageBytes <= 0 || !(d.Slowdown >= 0) {
			return fmt.Errorf("worker %s: a device has no negative number of pages, pages of at least a byte, and no negative slowdown", w.Name)
		}
	}
	for _, m := range w.Holds {
		if m < 0 || m >= len(s.Models) {
			return fmt.Errorf("worker %s holds model %d of %d", w.Name, m, len(s.Models))
		}
	}
	return nil
}

func (s *Scenario) checkFaults(names map[string]bool) (errs []error) {
	for _, f := range s.Failures {
		if !names[f.Worker] || f.At < 0 || f.For < 0 {
			errs = append(errs, fmt.Errorf("failure of %q at %v for %v: it needs the name of a worker, and no negative time", f.Worker, f.At, f.For))
		}
	}
	for _, f := range s.Slowdowns {
		if !names[f.Worker] || f.At < 0 || !(f.Factor > 0) {
			errs = append(errs, fmt.Errorf("slowdown of %q at %v by %v: it needs the name of a worker, no negative time, and a factor above 0", f.Worker, f.At, f.Factor))
			continue
		}
		for _, w := range s.Workers {
			if w.Name == f.Worker && f.Device >= len(w.Devices) {
				errs = append(errs, fmt.Errorf("slowdown of device %d of %s, which has %d", f.Device, f.Worker, len(w.Devices)))
			}
		}
	}
	end := time.Duration(0)
	for _, c := range s.LeaderChanges {
		if c.At < end || c.Gap < 0 {
			errs = append(errs, fmt.Errorf("change of leader at %v: the changes must be in order, and none within the gap of another", c.At))
		}
		end = c.At + c.Gap
	}
	return errs
}

// Ceiling is the most rows a second that the fleet can do with the models of
// its workloads asked alike: full batches without a pause, no slowdowns later
// than the beginning.
func (s *Scenario) Ceiling() float64 {
	sum := 0.0
	for _, w := range s.Workers {
		for _, d := range w.Devices {
			// Models share the device, so their times add up.
			total, n := 0.0, 0
			for i := range s.Models {
				p := s.Models[i].profile(d.Kind)
				if p == nil {
					continue
				}
				total += p.secondsPerRow(s.Models[i].largest(), s.Models[i].Alone)
				n++
			}
			if n > 0 && total > 0 {
				sum += float64(n) / total / slowdownOf(d)
			}
		}
	}
	return sum
}

// secondsPerRow is the least time that a row takes.
func (p *Profile) secondsPerRow(largest int, alone bool) float64 {
	best := p.time(1).Seconds()
	if alone {
		return best
	}
	for rows := 2; rows <= largest; rows++ {
		best = min(best, p.time(rows).Seconds()/float64(rows))
	}
	return best
}

func slowdownOf(d Device) float64 {
	if d.Slowdown == 0 {
		return 1
	}
	return d.Slowdown
}
