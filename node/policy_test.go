package node

import (
	"slices"
	"testing"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/scheduler"
)

func TestTheConfigurationKnowsThePoliciesThatThereAre(t *testing.T) {
	for _, name := range append(scheduler.Policies(), "nosuch") {
		c := configs.DefaultController()
		c.Name, c.DataDir, c.Cluster.Controllers = "c1", "/data", []configs.Address{"127.0.0.1:8011"}
		c.Scheduler.Policy = name
		if err := c.Validate(); (err == nil) != slices.Contains(scheduler.Policies(), name) {
			t.Errorf("scheduler.policy %s: %v", name, err)
		}
		if got := tunables(&c).Policy; got != name {
			t.Errorf("scheduler.policy %s reaches the controller as %q", name, got)
		}
	}
}
