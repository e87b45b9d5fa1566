package controller

import (
	"strings"

	"github.com/orrery-project/orrery/proto/logpb"
)

// PhaseName is the word for a phase, as users see it.
func PhaseName(p logpb.Phase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PHASE_"))
}
