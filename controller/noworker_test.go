package controller

import (
	"strings"
	"testing"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/proto/logpb"
)

// A leader that refused a model which was loaded between its two looks at the
// state read the new holdings with the old record, which has no signature yet, and
// died of it.
func TestModelLoadedWhileItIsRefused(t *testing.T) {
	p := newPool(t)
	p.worker("w1", 0, 1, 1)
	p.apply(&logpb.Command{Body: &logpb.Command_LoadModel{LoadModel: &logpb.LoadModel{Name: "m", Source: "s"}}})
	found := obstacle{errs.NotLoaded, "nobody has loaded it yet", "ask again"}

	if e := refuse(p.replica, 1, "m", nil, found); e.Reason != errs.NotLoaded || !strings.Contains(e.Message, "1 of the workers") {
		t.Errorf("before the load: %v", e)
	}
	p.hold(1, "w1", 1)
	if e := refuse(p.replica, 1, "m", nil, found); e.Reason != errs.NotProfiled {
		t.Errorf("after the load, with another obstacle: %v", e)
	}
	p.apply(&logpb.Command{Body: &logpb.Command_UnloadModel{UnloadModel: &logpb.UnloadModel{Name: "m"}}})
	if e := refuse(p.replica, 1, "m", nil, found); e.Reason != errs.UnknownModel {
		t.Errorf("after the unload: %v", e)
	}
}
