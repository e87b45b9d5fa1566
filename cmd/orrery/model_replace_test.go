package main

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// newer is version 2 of fashion-mlp on its way.
func newer(replaces uint64, code string, copies ...logpb.HoldingStatus) *controlpb.ModelStatus {
	m := &controlpb.ModelStatus{
		Model: &logpb.Model{Id: 7, Name: "fashion-mlp", Version: "2", Replaces: replaces, Info: &logpb.ModelInfo{Digest: "76706fb588150000"}},
		Code:  code, Reason: strings.ToLower(code),
	}
	for i, status := range copies {
		c := &controlpb.Copy{Worker: "w" + string(rune('1'+i)), Status: status}
		if status == logpb.HoldingStatus_HOLDING_STATUS_FAILED {
			c.Error = "no such file"
		}
		m.Copies = append(m.Copies, c)
	}
	return m
}

func TestModelReplace(t *testing.T) {
	const loaded, failed = logpb.HoldingStatus_HOLDING_STATUS_LOADED, logpb.HoldingStatus_HOLDING_STATUS_FAILED
	unmeasured := &controlpb.StartupStatus{Phase: logpb.Phase_PHASE_SERVING, Models: []*controlpb.ModelProgress{
		{Name: "fashion-mlp", Version: "1", Copies: 1, Loaded: 1, ProfilesWanted: 1, ProfilesDone: 1},
		{Name: "fashion-mlp", Version: "2", Copies: 1, Loaded: 1, ProfilesWanted: 1, ProfilesFailed: 1},
	}}
	for _, test := range []struct {
		name      string
		replacing []*controlpb.ModelStatus
		args      string
		status    int
		out, err  string // are contained
	}{
		{
			"it takes over", []*controlpb.ModelStatus{newer(1, "NOT_PROFILED", loaded, loaded), newer(1, "NOT_PROFILED", loaded, loaded), newer(1, "", loaded, loaded), newer(0, "", loaded, loaded)},
			"", 0, "76706fb58815  w2      loaded  -     -\n\nversion 2 of fashion-mlp has taken the place of version 1, which ends what it has and is then unloaded\n",
			"version 2: it is measured, and its weights are fetched",
		},
		{
			"one copy fails", []*controlpb.ModelStatus{newer(1, "", loaded, failed), newer(0, "", loaded, failed)},
			"", statusFailed, "has taken the place of version 1", "orrery: 1 of 2 copies of version 2 failed to load; mend the cause, then replace it once more\n",
		},
		{
			"all copies fail", []*controlpb.ModelStatus{newer(1, "LOAD_FAILED", failed)},
			"", statusFailed, "failed  -     no such file", "orrery: version 2 of fashion-mlp can't take over: it failed to load everywhere; version 1 goes on serving; mend the cause, " +
				"`orrery model unload fashion-mlp --model-version 2`, and replace again\n",
		},
		{
			"workers die with it", []*controlpb.ModelStatus{newer(1, "", loaded), newer(1, "MODEL_BLAMED", loaded)},
			"", statusFailed, "", "can't take over: MODEL_BLAMED: model_blamed; version 1 goes on serving",
		},
		{
			"it can't be measured", []*controlpb.ModelStatus{newer(1, "NOT_PROFILED", loaded)},
			"", statusFailed, "", "can't take over: it could not be measured on any kind of device",
		},
		{
			"it takes too long", []*controlpb.ModelStatus{newer(1, "NO_WORKER", loaded)},
			"--timeout 3s", statusFailed, "", "orrery: version 2 of fashion-mlp has not taken over yet: no_worker; version 1 goes on serving until it does",
		},
		{
			"it is unloaded meanwhile", []*controlpb.ModelStatus{newer(1, "", loaded), {Model: &logpb.Model{Id: 8, Name: "fashion-mlp", Version: "2"}}},
			"", statusFailed, "", "version 2 of fashion-mlp was unloaded before it took over: version 1 goes on serving",
		},
		{
			"it is there already", []*controlpb.ModelStatus{newer(0, "", loaded)},
			"--model-version 2", 0, "version 2 of fashion-mlp is there already, and replaces nothing\n", "",
		},
		{
			"it is over before the answer", []*controlpb.ModelStatus{newer(0, "", loaded)},
			"", 0, "version 2 of fashion-mlp has taken the place of the version before", "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := testnet.New()
				f := answers()
				f.replacing = test.replacing
				if test.name == "it is there already" {
					f.models = append(slices.Clone(f.models), test.replacing[0])
				}
				if test.name == "it can't be measured" {
					f.startup = []*controlpb.StartupStatus{unmeasured}
				}
				f.start(t, n)
				o := execute(t, n, environ, append(strings.Fields("model replace fashion-mlp --source new.onnx"), strings.Fields(test.args)...)...)
				if o.status != test.status || !strings.Contains(o.out, test.out) || !strings.Contains(o.err, test.err) {
					t.Errorf("%+v\nwant status %d, %q and %q", o, test.status, test.out, test.err)
				}
			})
		})
	}
}

// What the flags do not give stays as it is with the version that serves.
func TestModelReplaceKeepsWhatIsNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		f := answers()
		f.models[0].Model.Copies, f.models[0].Model.MaxRows = 2, 8
		f.models[0].Model.Constraints = []*logpb.Label{{Key: "zone", Value: "a"}}
		f.replacing = []*controlpb.ModelStatus{newer(0, "", logpb.HoldingStatus_HOLDING_STATUS_LOADED)}
		f.start(t, n)
		execute(t, n, environ, strings.Fields("model replace fashion-mlp --source new.onnx --copies 3 --largest image=64,64")...)
		want := &logpb.LoadModel{
			Name: "fashion-mlp", Source: "new.onnx", Replace: true, SloNs: 100_000_000, MaxRows: 8, Copies: 3,
			Constraints: []*logpb.Label{{Key: "zone", Value: "a"}}, Largest: []*logpb.TensorShape{{Name: "image", Shape: []int64{64, 64}}},
		}
		if diff := cmp.Diff(want, f.loaded, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		o := execute(t, n, environ, strings.Fields("model replace nobody --source new.onnx")...)
		if o.status != statusFailed || o.err != "orrery: there is no model \"nobody\" that could be replaced: `orrery model load` loads a new one\n" {
			t.Errorf("an unknown model: %+v", o)
		}
	})
}

func TestPresentVersion(t *testing.T) {
	version := func(v, reason string, replaces uint64, retiring bool) *controlpb.ModelStatus {
		return &controlpb.ModelStatus{Model: &logpb.Model{Version: v, Replaces: replaces, Retiring: retiring}, Reason: reason}
	}
	for want, versions := range map[string][]*controlpb.ModelStatus{
		"":   {version("1", "", 0, true), version("2", "", 1, false)},
		"10": {version("9", "", 0, false), version("10", "", 0, false), version("11", "", 10, false)},
		"2":  {version("2", "", 0, false), version("3", "it is not loaded", 0, false)},
		"3":  {version("2", "gone", 0, false), version("3", "gone", 0, false)},
		"0":  {version("0", "", 0, false)},
	} {
		if got := presentVersion(versions).GetVersion(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// On a terminal a load draws the models of the call alone, and takes them away when
// the answer comes.
func TestModelLoadOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		f := answers()
		f.models[0].Copies = f.models[0].Copies[:1]
		f.startup = []*controlpb.StartupStatus{{Phase: logpb.Phase_PHASE_LOADING, CountdownNs: -1, WaitingFor: "1 load that is pending", Models: []*controlpb.ModelProgress{
			{Name: "m-0", Version: "1", Copies: 2, Loaded: 1, Pending: 1},
			{Name: "m-1", Version: "1", Copies: 2, Pending: 2},
			{Name: "m-2", Version: "1", Copies: 2, Loaded: 2},
			{Name: "m-1", Version: "2", Copies: 2, Loaded: 2},
			{Name: "other", Version: "1", Copies: 2, Loaded: 2},
		}}}
		f.loading = time.Second
		f.start(t, n)
		o := executeOn(t, n, terminal(80, 24), environ, strings.Fields("model load m --source m.onnx --instances 2")...)
		want := "loading: waits for 1 load that is pending\x1b[K\n" +
			"MODEL  VERSION  PROGRESS\x1b[K\n" +
			"m-0    1        [██████████          ]  1/2 loaded\x1b[K\n" +
			"m-1    1        [                    ]  0/2 loaded\x1b[K\n\x1b[J" +
			"\x1b[4A\r\x1b[J"
		if o.status != 0 || o.err != want || strings.Contains(o.out, "\x1b") {
			t.Errorf("%+v\nwant\n%q", o, want)
		}
	})
}

func TestOfLoad(t *testing.T) {
	one := ofLoad(&logpb.LoadModel{Name: "m", Version: "3"})
	three := ofLoad(&logpb.LoadModel{Name: "m", Instances: 3})
	for _, test := range []struct {
		name, version string
		one, three    bool
	}{
		{"m", "3", true, false}, {"m", "1", false, false}, {"m-0", "1", false, true}, {"m-2", "1", false, true}, {"m-3", "1", false, false},
		{"m-x", "1", false, false}, {"n-0", "1", false, false}, {"m-0", "2", false, false},
	} {
		m := &controlpb.ModelProgress{Name: test.name, Version: test.version}
		if one(m) != test.one || three(m) != test.three {
			t.Errorf("%v: %v, %v", test, one(m), three(m))
		}
	}
}
