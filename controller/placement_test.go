package controller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/proto/logpb"
)

// pool is a state with workers of so many MiB of host memory, speeds and
// devices, and models of so many MiB that want a copy each.
type pool struct {
	t       *testing.T
	replica *fsm.Replica
	index   uint64
	models  uint64
	// begun are the models that workers are loading without having been chosen.
	begun map[string]map[uint64]bool
}

func newPool(t *testing.T) *pool {
	p := &pool{t: t, replica: fsm.NewReplica(fsm.Options{OnFault: func(err error) { t.Fatal(err) }})}
	p.apply(&logpb.Command{Body: &logpb.Command_InitCluster{InitCluster: &logpb.InitCluster{ClusterId: "test"}}})
	return p
}

func (p *pool) apply(c *logpb.Command) {
	p.t.Helper()
	p.index++
	c = command(c)
	c.ProposedUnixNs = c.RequestedUnixNs
	entry, err := proto.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	if r := p.replica.Apply(&raft.Log{Index: p.index, Data: entry, Type: raft.LogCommand}).(*logpb.Result); r.Reason != logpb.Reason_REASON_NONE {
		p.t.Fatalf("%v: %v", c, r)
	}
}

func (p *pool) worker(name string, memoryMiB uint64, speed float64, devices int) {
	w := &logpb.Worker{
		Name: name, Incarnation: "1", SessionAddress: name + ":1", Speed: speed, HostMemoryBytes: memoryMiB << 20,
		Engines: []*logpb.Engine{{Name: "e", Version: "1"}},
	}
	for i := range devices {
		w.Devices = append(w.Devices, &logpb.Device{Index: uint32(i), Kind: "cpu", PageBytes: 1 << 20, Pages: 200})
	}
	p.apply(&logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: w}}})
}

// want adds a model of so many MiB that some worker, which is not one of the
// candidates, has loaded before.
func (p *pool) want(mib uint64, copies uint32) uint64 {
	p.models++
	p.apply(&logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: fmt.Sprint("m", p.models), Source: "s", Copies: copies}}})
	p.hold(p.models, "scout", mib)
	p.apply(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{
		{Remove: true, Holding: &logpb.Holding{ModelId: p.models, Worker: "scout", Incarnation: "1"}},
	}}}})
	return p.models
}

func (p *pool) hold(id uint64, worker string, mib uint64) {
	p.apply(&logpb.Command{Body: &logpb.Command_UpdateHoldings{UpdateHoldings: &logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{{
		Holding: &logpb.Holding{ModelId: id, Worker: worker, Incarnation: "1", Status: logpb.HoldingStatus_HOLDING_STATUS_LOADED},
		Info:    &logpb.ModelInfo{Digest: "d", Engine: "e", EngineVersion: "1", ProfileRows: []uint32{1}, HostBytes: mib << 20, WeightsBytes: mib << 20},
	}}}}})
}

// place places the missing copies of all models, and returns the names by model.
func (p *pool) place(queued map[string]int, unusable ...string) map[uint64][]string {
	chosen := map[uint64][]string{}
	p.replica.Read(func(s *fsm.State) {
		all := newRooms(s, func(name string) (int, bool) {
			return queued[name], name != "scout" && !slices.Contains(unusable, name)
		})
		for name, r := range all {
			r.begun = p.begun[name]
		}
		for _, m := range s.Models() {
			for _, w := range all.place(s, m) {
				chosen[m.Id] = append(chosen[m.Id], w.Name)
			}
		}
	})
	return chosen
}

func TestPlacement(t *testing.T) {
	start := func(t *testing.T) *pool {
		p := newPool(t)
		p.worker("scout", 1<<20, 1, 1)
		return p
	}
	t.Run("evenly", func(t *testing.T) {
		p := start(t)
		for _, name := range []string{"a", "b", "c"} {
			p.worker(name, 10_000, 1, 1)
		}
		for range 30 {
			p.want(10, 2)
		}
		count := map[string]int{}
		for id, names := range p.place(nil) {
			if len(names) != 2 || names[0] == names[1] {
				t.Errorf("model %d on %v", id, names)
			}
			for _, name := range names {
				count[name]++
			}
		}
		if count["a"] != 20 || count["b"] != 20 || count["c"] != 20 {
			t.Errorf("counts %v", count)
		}
	})
	t.Run("by speed and devices", func(t *testing.T) {
		p := start(t)
		p.worker("slow", 10_000, 0.5, 1)
		p.worker("fast", 10_000, 1, 3)
		for range 70 {
			p.want(1, 1)
		}
		count := map[string]int{}
		for _, names := range p.place(nil) {
			count[names[0]]++
		}
		if count["slow"] < 8 || count["slow"] > 12 {
			t.Errorf("counts %v, want one in seven on the slow one", count)
		}
	})
	t.Run("by memory", func(t *testing.T) {
		p := start(t)
		p.worker("small", 100, 1, 1)
		p.worker("large", 1000, 1, 1)
		for range 4 {
			p.want(60, 1) // one fits on the small one
		}
		small := 0
		for _, names := range p.place(nil) {
			if names[0] == "small" {
				small++
			}
		}
		if small != 1 {
			t.Errorf("%d on the small one", small)
		}
	})
	t.Run("where it does not seem to fit, rather than nowhere", func(t *testing.T) {
		p := start(t)
		p.worker("a", 50, 1, 1)
		p.worker("b", 50, 1, 1)
		if got := p.place(nil)[p.want(60, 1)]; len(got) > 0 {
			t.Fatal("placed before it was wanted")
		}
		if got := p.place(nil)[1]; len(got) != 1 {
			t.Errorf("on %v", got)
		}
	})
	t.Run("weights too large for a device come last", func(t *testing.T) {
		p := start(t)
		p.worker("a", 10_000, 1, 1)
		p.apply(&logpb.Command{Body: &logpb.Command_RegisterWorker{RegisterWorker: &logpb.RegisterWorker{Worker: &logpb.Worker{
			Name: "b", Incarnation: "1", SessionAddress: "b:1", Speed: 0.1, Engines: []*logpb.Engine{{Name: "e", Version: "1"}},
			Devices: []*logpb.Device{{Kind: "cpu", PageBytes: 1 << 20, Pages: 5000}},
		}}}})
		p.want(300, 1)
		if got := p.place(nil)[1]; !slices.Equal(got, []string{"b"}) {
			t.Errorf("on %v", got)
		}
	})
	t.Run("by what is in hand", func(t *testing.T) {
		p := start(t)
		p.worker("a", 1000, 1, 1)
		p.worker("b", 1000, 1, 1)
		p.want(1, 1)
		if got := p.place(map[string]int{"a": 7})[1]; !slices.Equal(got, []string{"b"}) {
			t.Errorf("on %v", got)
		}
	})
	t.Run("where it is being loaded", func(t *testing.T) {
		p := start(t)
		p.worker("a", 10_000, 1, 1)
		p.worker("b", 10_000, 1, 1)
		p.begun = map[string]map[uint64]bool{"b": {1: true, 2: true}}
		for range 3 {
			p.want(10, 1)
		}
		if got := p.place(map[string]int{"b": 7}); got[1][0] != "b" || got[2][0] != "b" || got[3][0] != "a" {
			t.Errorf("%v; b has begun to load two of them", got)
		}
	})
	t.Run("not on those that can't be used", func(t *testing.T) {
		p := start(t)
		p.worker("a", 1000, 1, 1)
		p.worker("b", 1000, 1, 1)
		p.want(1, 1)
		if got := p.place(nil, "a", "b")[1]; len(got) > 0 {
			t.Errorf("on %v", got)
		}
	})
}
