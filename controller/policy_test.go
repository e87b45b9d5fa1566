package controller

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/scheduler"
)

// setPolicy proposes settings with a policy, under a version of commands; 0: the right one.
func (l *soloLog) setPolicy(t *testing.T, name string, version uint32) {
	t.Helper()
	cmd := &logpb.Command{Body: &logpb.Command_SetSettings{SetSettings: &logpb.SetSettings{Settings: &logpb.Settings{Policy: name}}}}
	if version == 0 {
		version = fsm.NeededVersion(cmd)
	}
	l.proposeAs(t, cmd, version)
	kept := ""
	l.replica.Read(func(s *fsm.State) { kept = s.Cluster().GetSettings().GetPolicy() })
	if kept != name {
		t.Fatalf("the policy set is %q, not %q", kept, name)
	}
}

func (l *soloLog) raise(t *testing.T) {
	l.propose(t, &logpb.Command{Body: &logpb.Command_RaiseVersion{RaiseVersion: &logpb.RaiseVersion{To: fsm.Version}}})
}

func TestTheDispatcherIsToldOfAnotherPolicy(t *testing.T) {
	k, log := soloCoordinator(t, nil, serving...)
	var told []scheduler.Event
	var written bytes.Buffer
	d := newDispatcher(log.replica, 1<<20, &script{func(_ scheduler.Instant, events []scheduler.Event, _ *scheduler.Decisions) {
		told = append(told, events...)
	}}, k.term.c.instant, hclog.NewNullLogger())
	k.term.dispatcher, k.term.policies = d, []string{"orrery", "other"}
	k.log = hclog.New(&hclog.LoggerOptions{Output: &written})
	d.start()
	d.step()
	told = nil

	for _, step := range []struct {
		set     string
		version uint32
		told    []scheduler.Event
		logs    string
	}{
		{set: "other", version: 1}, // of an old controller, which knows of no version 5
		{set: "", version: 1},
		{set: "orrery"},
		{set: "other", told: []scheduler.Event{scheduler.PolicyChanged{Policy: "other"}}, logs: "scheduling policy changed: from=orrery to=other"},
		{set: "newer", told: []scheduler.Event{scheduler.PolicyChanged{Policy: "orrery"}}, logs: "doesn't have the scheduling policy"},
		{set: "newest", logs: "policy=newest default=orrery"},
		{set: "other", told: []scheduler.Event{scheduler.PolicyChanged{Policy: "other"}}, logs: "scheduling policy changed"},
		{set: "", told: []scheduler.Event{scheduler.PolicyChanged{Policy: "orrery"}}, logs: "scheduling policy changed: from=other to=orrery"},
	} {
		if step.version == 0 {
			log.raise(t)
		}
		log.setPolicy(t, step.set, step.version)
		told = nil
		written.Reset()
		for range 3 {
			log.replica.Read(k.followPolicy)
			d.step()
		}
		if diff := cmp.Diff(step.told, told); diff != "" {
			t.Errorf("set to %q (-want +got):\n%s", step.set, diff)
		}
		lines := written.String()
		if (step.logs == "") != (lines == "") || !strings.Contains(lines, step.logs) || strings.Count(lines, "doesn't have") > 1 {
			t.Errorf("set to %q, it logs %q, want %q", step.set, lines, step.logs)
		}
	}
}

// A policy that is told before the schedule begins is told after the start.
func TestAPolicyChangedBeforeTheStart(t *testing.T) {
	k, log := soloCoordinator(t, nil, serving...)
	var told []scheduler.Event
	d := newDispatcher(log.replica, 1<<20, &script{func(_ scheduler.Instant, events []scheduler.Event, _ *scheduler.Decisions) {
		told = append(told, events...)
	}}, k.term.c.instant, hclog.NewNullLogger())
	k.term.dispatcher, k.term.policies = d, []string{"orrery", "other"}
	log.raise(t)
	log.setPolicy(t, "other", 0)
	log.replica.Read(k.followPolicy)
	d.step()
	d.mailbox.post(d.start)
	d.step()
	want := []scheduler.Event{scheduler.Start{State: &scheduler.State{}}, scheduler.PolicyChanged{Policy: "other"}}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestATermBeginsWithThePolicyThatIsSet(t *testing.T) {
	k, log := soloCoordinator(t, nil)
	c := k.term.c
	for _, name := range scheduler.Policies() {
		for _, test := range []struct{ configured, set, want string }{
			{"", "", scheduler.DefaultPolicy},
			{name, "", name},
			{"nosuch", name, name},
			{name, "nosuch", scheduler.DefaultPolicy},
		} {
			log.raise(t)
			log.setPolicy(t, test.set, 0)
			c.Tune(Tunables{Policy: test.configured})
			policy, choice := c.newPolicy(hclog.NewNullLogger())
			if policy == nil || choice.used != test.want {
				t.Errorf("configured %q, set %q: %v, want %q", test.configured, test.set, choice, test.want)
			}
		}
	}
}

func TestAPolicyThatThereIsNotIsRefused(t *testing.T) {
	k, log := soloCoordinator(t, nil)
	c := k.term.c
	for _, name := range append(scheduler.Policies(), "") {
		if err := c.checkPolicy(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	err := c.checkPolicy("nosuch")
	words := append(scheduler.Policies(), `"nosuch"`)
	if !errors.Is(err, errs.Invalid) || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
		t.Errorf("%v; it is to name %q", err, words)
	}
	// So that other settings can still be changed here.
	log.raise(t)
	log.setPolicy(t, "nosuch", 0)
	if err := c.checkPolicy("nosuch"); err != nil {
		t.Errorf("as a newer controller has set it: %v", err)
	}
}
