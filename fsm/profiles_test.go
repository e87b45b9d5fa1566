package fsm

import (
	"testing"

	"github.com/orrery-project/orrery/proto/logpb"
)

func TestProfiles(t *testing.T) {
	l := serving(t)
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "gpu", 5), profile(digestB, "cpu", 5), profile(digestA, "cpu", 5)}})
	l.ok(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "gpu", 7)}})
	want := []*logpb.Profile{profile(digestA, "cpu", 5), profile(digestA, "gpu", 7)}
	equal(t, "by model", l.state.ProfilesOf(l.state.Model(1)), want)
	equal(t, "by digest", l.state.Profiles(digestA, "gomlx", "1", ""), want)
	equal(t, "by key", l.state.Profile(want[1].GetKey()), want[1])
	equal(t, "of another engine version", len(l.state.Profiles(digestA, "gomlx", "2", "")), 0)
	equal(t, "of a model that nobody has loaded", len(l.state.ProfilesOf(&logpb.Model{})), 0)
	l.ok(&logpb.UnloadModel{Name: "m"})
	equal(t, "after unloading", l.state.Profiles(digestA, "gomlx", "1", ""), want)
}

func TestProfilesAreChecked(t *testing.T) {
	for words, spoil := range map[string]func(*logpb.Profile){
		"key is not complete":             func(p *logpb.Profile) { p.Key = nil },
		`on ""`:                           func(p *logpb.Profile) { p.Key.DeviceKind = "" },
		"no execution times":              func(p *logpb.Profile) { p.Execution = nil },
		"weights load: p50 is 0 ns":       func(p *logpb.Profile) { p.WeightsLoadP50Ns = 0 },
		"p99 is 9 ns":                     func(p *logpb.Profile) { p.WeightsLoadP99Ns = 9 },
		"0 rows come after 0":             func(p *logpb.Profile) { p.Execution[0].Rows = 0 },
		"1 rows come after 1":             func(p *logpb.Profile) { p.Execution[1].Rows = 1 },
		"execution of 4 rows: p50 is -1 ": func(p *logpb.Profile) { p.Execution[1].P50Ns = -1 },
	} {
		t.Run(words, func(t *testing.T) {
			p := profile(digestB, "cpu", 5)
			spoil(p)
			newCluster(t).refused(&logpb.PutProfiles{Profiles: []*logpb.Profile{profile(digestA, "cpu", 5), p}}, logpb.Reason_REASON_INVALID, "profile 1: ", words)
		})
	}
}
