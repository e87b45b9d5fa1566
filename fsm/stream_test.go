package fsm

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/orrery-project/orrery/proto/logpb"
)

// stream draws a command stream: from few names, so that commands meet, and with the retries, the clocks that jump and
// the mistakes that a cluster sees.
func stream(length int) *rapid.Generator[[]*logpb.Command] {
	return rapid.Custom(func(t *rapid.T) []*logpb.Command {
		cmds := []*logpb.Command{}
		now := start
		for i := range rapid.IntRange(length/2, length).Draw(t, "length") {
			now += rapid.SampledFrom([]int64{0, 1, 1e6, 1e9, int64(3 * time.Minute), -int64(20 * time.Second)}).Draw(t, "step")
			if len(cmds) > 0 && rapid.IntRange(0, 9).Draw(t, "retry") == 0 {
				again := proto.CloneOf(rapid.SampledFrom(cmds).Draw(t, "which"))
				again.ProposedUnixNs = now
				cmds = append(cmds, again)
				continue
			}
			var cmd *logpb.Command
			if i == 0 {
				cmd = command(&logpb.InitCluster{ClusterId: "c-1", Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}})
			} else {
				cmd = command(body(t))
			}
			cmd.RequestId = fmt.Sprintf("r-%d", i)
			cmd.ProposedUnixNs = now
			cmd.RequestedUnixNs = now + rapid.SampledFrom([]int64{0, -1e9, 1e9, int64(time.Hour)}).Draw(t, "skew")
			if NeededVersion(cmd) > 1 && rapid.Bool().Draw(t, "right") {
				cmd.Version = NeededVersion(cmd)
			} else {
				cmd.Version = rapid.SampledFrom([]uint32{0, 1, 1, 1, 1, 2, 3, 4, 5, Version + 1}).Draw(t, "version")
			}
			if i == 0 {
				cmd.RequestedUnixNs, cmd.Version = now, 0
			}
			cmds = append(cmds, cmd)
		}
		return cmds
	})
}

// body draws a command's body; those that make records are drawn more often.
func body(t *rapid.T) proto.Message {
	name := rapid.SampledFrom([]string{"w1", "w2", "w3"})
	incarnation := rapid.SampledFrom([]string{"i1", "i1", "i2"})
	model := rapid.SampledFrom([]string{"m", "n", "bad name"})
	version := rapid.SampledFrom([]string{"", "1", "2", "10"})
	kind := rapid.SampledFrom([]string{"cpu", "gpu"})
	digest := rapid.SampledFrom([]string{digestA, digestA, digestA, digestB})
	switch rapid.IntRange(0, 24).Draw(t, "body") {
	case 0, 1, 2:
		w := worker(name.Draw(t, "worker"), incarnation.Draw(t, "incarnation"))
		w.Speed = rapid.SampledFrom([]float64{1, 2.5, 0}).Draw(t, "speed")
		return &logpb.RegisterWorker{Worker: w}
	case 3:
		return &logpb.SetWorkerStatus{
			Name: name.Draw(t, "worker"), Status: logpb.WorkerStatus(rapid.Int32Range(0, 5).Draw(t, "status")),
			DrainUntilUnixNs: rapid.SampledFrom([]int64{0, 0, start}).Draw(t, "until"),
		}
	case 4:
		return &logpb.RemoveWorker{Name: name.Draw(t, "worker"), Incarnation: incarnation.Draw(t, "incarnation")}
	case 5, 6, 7:
		return &logpb.LoadModel{
			Name: model.Draw(t, "model"), Version: version.Draw(t, "version"), Source: rapid.SampledFrom([]string{"a", "a", "b"}).Draw(t, "source"),
			Instances: rapid.Uint32Range(0, 3).Draw(t, "instances"), Copies: rapid.Uint32Range(0, 1).Draw(t, "copies"),
			Replace: rapid.IntRange(0, 2).Draw(t, "replace") == 0,
		}
	case 8:
		return &logpb.UnloadModel{Name: model.Draw(t, "model"), Version: version.Draw(t, "version")}
	case 9, 10, 11:
		c := &logpb.UpdateHoldings{}
		for range rapid.IntRange(1, 6).Draw(t, "updates") {
			u := loaded(rapid.Uint64Range(1, 12).Draw(t, "id"), name.Draw(t, "worker"), incarnation.Draw(t, "incarnation"), digest.Draw(t, "digest"))
			u.Holding.Status = logpb.HoldingStatus(rapid.Int32Range(0, 2).Draw(t, "status"))
			if u.Holding.Status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
				u.Holding.Fault = logpb.HoldingFault(rapid.Int32Range(0, 2).Draw(t, "fault"))
			}
			u.Remove = rapid.IntRange(0, 5).Draw(t, "remove") == 0
			c.Updates = append(c.Updates, u)
		}
		return c
	case 12:
		return &logpb.PutProfiles{Profiles: []*logpb.Profile{
			profile(digest.Draw(t, "digest"), kind.Draw(t, "kind"), rapid.Int64Range(0, 9).Draw(t, "p50")),
			profile(digest.Draw(t, "digest"), kind.Draw(t, "kind"), 5),
		}}
	case 13:
		from := logpb.Phase(rapid.Int32Range(0, 4).Draw(t, "from"))
		return &logpb.SetPhase{From: from, To: from + 1, LastModelId: rapid.Uint64Range(0, 5).Draw(t, "last")}
	case 14:
		return rapid.SampledFrom([]proto.Message{
			&logpb.SetSettings{Settings: &logpb.Settings{Policy: "edf"}},
			&logpb.SetSettings{Settings: &logpb.Settings{Policy: "bad name"}},
			&logpb.SetSettings{Settings: &logpb.Settings{LateLoads: logpb.Settings_LATE_LOADS_ADMIT}},
			&logpb.RaiseEpoch{To: 3},
			&logpb.RaiseEpoch{To: 7},
			&logpb.InitCluster{ClusterId: "c-2"},
			&logpb.RaiseVersion{To: 1},
			&logpb.RaiseVersion{To: Version},
			&logpb.RaiseVersion{To: Version},
		}).Draw(t, "setting")
	case 15:
		return &logpb.CheckDigest{
			Index:  rapid.Uint64Range(0, 20).Draw(t, "index"),
			Digest: rapid.SampledFrom([]string{"", strings.Repeat("a1", 32)}).Draw(t, "digest"),
		}
	case 16:
		snapshots := smallSnapshots(t)
		return &logpb.RestoreState{
			Snapshot:       snapshots[rapid.IntRange(0, len(snapshots)-1).Draw(t, "snapshot")],
			ReplaceCluster: rapid.Bool().Draw(t, "replace"),
		}
	case 17:
		return &logpb.SetModelBlame{
			ModelId: rapid.Uint64Range(1, 12).Draw(t, "id"), Blame: rapid.SampledFrom([]string{"", "w1 died with it"}).Draw(t, "blame"),
		}
	case 18:
		return &logpb.ReopenStartup{Close: rapid.Bool().Draw(t, "close")}
	case 19:
		return &logpb.PutDeviceChecks{Updates: []*logpb.DeviceCheckUpdate{{
			Worker: name.Draw(t, "worker"), Incarnation: incarnation.Draw(t, "incarnation"), Check: &logpb.DeviceCheck{
				Device: rapid.Uint32Range(0, 2).Draw(t, "device"), Ratio: rapid.SampledFrom([]float64{1, 1.5, 0}).Draw(t, "ratio"), Runs: 3,
			},
		}}}
	case 20, 21:
		return &logpb.ReplaceModel{ModelId: rapid.Uint64Range(1, 12).Draw(t, "id")}
	case 22, 23:
		return &logpb.PinModel{
			Name: model.Draw(t, "model"), Version: version.Draw(t, "version"),
			Devices: rapid.SampledFrom([]uint32{0, 1, 1, 2, maxPinned + 1}).Draw(t, "devices"),
		}
	default:
		return &logpb.TakeDigest{}
	}
}

// smallSnapshots are of this cluster and another one, and one is damaged.
func smallSnapshots(t *rapid.T) [][]byte {
	var all [][]byte
	for _, id := range []string{"c-1", "c-9"} {
		s := New()
		for i, body := range []proto.Message{
			&logpb.InitCluster{ClusterId: id}, register("w1", "i1"), &logpb.LoadModel{Name: "m", Source: "a"},
			&logpb.UpdateHoldings{Updates: []*logpb.HoldingUpdate{loaded(1, "w1", "i1", digestA)}},
		} {
			cmd := command(body)
			cmd.RequestId = fmt.Sprint("earlier-", i)
			applyTo(t, s, i, cmd)
		}
		var file bytes.Buffer
		if err := s.Snapshot().Encode(&file); err != nil {
			t.Fatal(err)
		}
		all = append(all, file.Bytes())
	}
	damaged := bytes.Clone(all[0])
	damaged[len(damaged)/2] ^= 1
	return append(all, damaged)
}
