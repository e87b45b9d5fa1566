//go:build linux

package main

import (
	"maps"

	"github.com/orrery-project/orrery/e2e/bench"
)

// result is one trial, as a line of the results file. Times are milliseconds.
type result struct {
	bench.Head

	// Gap is the longest time without an acknowledged control write at any of the
	// controllers, WorstGap that at the one where it was longest.
	Gap      float64 `json:"gap_ms"`
	WorstGap float64 `json:"worst_gap_ms"`
	// Parts are the steps of a fault that has several; Gap is the longest.
	Parts []part `json:"parts"`
	// Recovered says that writes went on, Whole that all was as before in the
	// end.
	Recovered bool `json:"recovered"`
	Whole     bool `json:"whole"`

	bench.Requests
	AnswerGap float64 `json:"answer_gap_ms"`

	// ListeningMS is from the start of processes to their first listener.
	ListeningMS float64 `json:"listening_ms,omitempty"`
	// Refused are the refusals of control writes without a quorum.
	Refused   int     `json:"refused,omitempty"`
	RefuseMax float64 `json:"refuse_max_ms,omitempty"`
	// Unrefused are control writes that were not refused in time, but by our own.
	Unrefused int    `json:"unrefused,omitempty"`
	Exit      string `json:"exit,omitempty"`

	Load1 float64  `json:"load1"`
	Notes []string `json:"notes,omitempty"`
}

// part is one step of a fault.
type part struct {
	Name     string  `json:"name,omitempty"`
	Gap      float64 `json:"gap_ms"`
	WorstGap float64 `json:"worst_gap_ms"`
	// Since the fault: when a survivor first stood for election, when one was
	// elected, when one had taken over, and when the longest time without an
	// acknowledged write was over. 0: not in the logs.
	Stood        float64 `json:"stood_ms,omitempty"`
	Elected      float64 `json:"elected_ms,omitempty"`
	Leading      float64 `json:"leading_ms,omitempty"`
	Acknowledged float64 `json:"acknowledged_ms"`
	Candidacies  int     `json:"candidacies"`
	// How busy the machine was meanwhile.
	Idle   float64 `json:"cpu_idle_percent"`
	Stolen float64 `json:"cpu_stolen_percent"`
	Stall  float64 `json:"stall_ms"`
}

// refusals notes how control writes ended while there was no quorum.
func (r *result) refusals(writes []bench.Write) {
	for _, w := range writes {
		switch {
		case w.Err == nil:
			r.Notes = append(r.Notes, "a write was acknowledged without a quorum")
		case timedOut(w.Err):
			r.Unrefused++
		default:
			r.Refused++
			r.RefuseMax = max(r.RefuseMax, bench.MS(w.Took))
		}
	}
}

// variant is a configuration to measure.
type variant struct {
	name string
	keys map[string]string
}

// variants are our defaults, and those of the library.
func variants(o options) []variant {
	all := []variant{{name: "orrery", keys: o.Keys}}
	if o.baseline {
		keys := map[string]string{}
		maps.Copy(keys, o.Keys)
		maps.Copy(keys, bench.LibraryTimeouts())
		all = append(all, variant{name: "library", keys: keys})
	}
	return all
}

// book is the results file. Only trials of the same binary and options count.
type book struct {
	*bench.Book[result]
	rate int
}

// print is what a trial of a row depends on.
func (b *book) print(r row, v variant) string {
	return bench.Print(v.keys, b.Binary, b.rate, r.name, r.deadline, r.patience, v.name, writePause)
}

// trials are the valid ones of a row and variant, in order.
func (b *book) trials(r row, v variant) []result { return b.Trials(b.print(r, v)) }

// invalid are the reasons of those that don't count.
func (b *book) invalid(r row, v variant) []string { return b.Invalid(b.print(r, v)) }
