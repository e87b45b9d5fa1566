package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/orrery-project/orrery/internal/testnet"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

func TestASettingLeavesTheOthersAsTheyAre(t *testing.T) {
	n := testnet.New()
	f := answers()
	f.start(t, n)
	const admit = logpb.Settings_LATE_LOADS_ADMIT
	for _, step := range []struct {
		set   string
		want  *logpb.Settings
		shows string
	}{
		{"late_loads=admit", &logpb.Settings{LateLoads: admit}, "policy      default: the configured one"},
		{"policy=fifo", &logpb.Settings{LateLoads: admit, Policy: "fifo"}, "late_loads  admit\npolicy      fifo\n"},
		{"late_loads=reject", &logpb.Settings{Policy: "fifo"}, "policy      fifo"},
		{"policy=default", &logpb.Settings{}, "default"},
		{"policy=lottery late_loads=admit", &logpb.Settings{LateLoads: admit, Policy: "lottery"}, "lottery"},
		{"policy=", &logpb.Settings{LateLoads: admit}, "late_loads  admit\npolicy      default"},
	} {
		o := execute(t, n, environ, append([]string{"cluster", "set"}, strings.Fields(step.set)...)...)
		if o.status != 0 || !strings.Contains(o.out, step.shows) {
			t.Errorf("set %s: %+v", step.set, o)
		}
		if diff := cmp.Diff(step.want, f.status.Cluster.Settings, protocmp.Transform()); diff != "" {
			t.Errorf("set %s (-want +got):\n%s", step.set, diff)
		}
	}
	for _, bad := range []string{"policy", "polices=fifo", "late_loads=maybe"} {
		if o := execute(t, n, environ, "cluster", "set", bad); o.status == 0 || !strings.Contains(o.err, "policy=NAME") || !strings.Contains(o.err, bad) {
			t.Errorf("set %s: %+v", bad, o)
		}
	}
}

func TestWhoSaysWhichPolicyIsUsed(t *testing.T) {
	for want, c := range map[string]struct{ set, used string }{
		"the configured one":           {"", ""},
		"edf, as configured":           {"", "edf"},
		"fifo, as set for the cluster": {"fifo", "fifo"},
		"edf, although fifo is set: not all controllers know that one, update them": {"fifo", "edf"},
	} {
		s := &controlpb.ClusterStatusResponse{Policy: c.used, Cluster: &logpb.Cluster{Settings: &logpb.Settings{Policy: c.set}}}
		if got := policyText(s); got != want {
			t.Errorf("set %q, used %q: %q, want %q", c.set, c.used, got, want)
		}
	}
	if got := policyText(&controlpb.ClusterStatusResponse{Cluster: &logpb.Cluster{Settings: &logpb.Settings{Policy: "fifo"}}}); got != "fifo, as set for the cluster" {
		t.Errorf("when the leader was not asked: %q", got)
	}
}
