package controller

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/scheduler"
)

// policyChoice is which scheduling policy a leader uses.
type policyChoice struct {
	// wanted is the one that is asked for, used the one that is.
	wanted, used string
}

// choosePolicy takes the policy that is wanted if it is one of known, else the
// default: a newer controller may have set one that this release doesn't have.
func choosePolicy(wanted string, known []string, log hclog.Logger) policyChoice {
	if slices.Contains(known, wanted) {
		return policyChoice{wanted, wanted}
	}
	log.Error("this release doesn't have the scheduling policy, and uses its default one", "policy", wanted, "default", scheduler.DefaultPolicy)
	return policyChoice{wanted, scheduler.DefaultPolicy}
}

// wantedPolicy is the policy of the cluster's settings, or else the configured one.
func (c *Controller) wantedPolicy(s *fsm.State) string {
	return cmp.Or(s.Policy(), c.tunables.Load().Policy, scheduler.DefaultPolicy)
}

// newPolicy is a fresh policy for a term.
func (c *Controller) newPolicy(log hclog.Logger) (scheduler.Policy, policyChoice) {
	wanted := ""
	c.options.Replica.Read(func(s *fsm.State) { wanted = c.wantedPolicy(s) })
	choice := choosePolicy(wanted, scheduler.Policies(), log)
	tunables := c.tunables.Load()
	policy, _ := scheduler.New(choice.used, scheduler.Options{ScheduleAhead: tunables.ScheduleAhead, ResultGrace: tunables.ResultGrace}) // it is one that there is
	return policy, choice
}

// policyUsed is the policy with which this replica leads; empty: it does not lead.
func (c *Controller) policyUsed() string {
	if t := c.term.Load(); t != nil {
		return t.policy.Load().used
	}
	return ""
}

// checkPolicy refuses the setting of a policy that this release doesn't have. One
// that is set already may stay: a newer controller knows it.
func (c *Controller) checkPolicy(name string) error {
	known := scheduler.Policies()
	if name == "" || slices.Contains(known, name) || name == c.cluster().GetSettings().GetPolicy() {
		return nil
	}
	return errs.New(errs.Invalid, "there is no scheduling policy %.80q; the policies are %s, and an empty name stands for the configured one",
		name, strings.Join(known, ", "))
}

// followPolicy has the dispatcher change the policy once another one is wanted.
func (k *coordinator) followPolicy(s *fsm.State) {
	t := k.term
	now, wanted := *t.policy.Load(), t.c.wantedPolicy(s)
	if wanted == now.wanted {
		return
	}
	next := choosePolicy(wanted, t.policies, k.log)
	t.policy.Store(&next)
	if next.used == now.used {
		return
	}
	t.dispatcher.mailbox.post(func() { t.dispatcher.event(scheduler.PolicyChanged{Policy: next.used}) })
	k.log.Info("scheduling policy changed", "from", now.used, "to", next.used)
}
