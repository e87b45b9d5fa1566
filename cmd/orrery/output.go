package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/controlpb"
)

// show prints an answer as JSON or as a person reads it.
func (q *query) show(answer proto.Message, table func(io.Writer)) error {
	if q.output != "json" {
		table(q.out)
		return nil
	}
	return q.showJSON(answer, func(to *bytes.Buffer, text []byte) error { return json.Indent(to, text, "", "  ") })
}

// showLine prints one of many answers as JSON, on a line of its own.
func (q *query) showLine(answer proto.Message) error { return q.showJSON(answer, json.Compact) }

// showJSON lays the text out itself: protojson varies its spaces on purpose.
func (q *query) showJSON(answer proto.Message, layOut func(*bytes.Buffer, []byte) error) error {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(answer)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := layOut(&out, text); err != nil {
		return err
	}
	_, err = fmt.Fprintln(q.out, &out)
	return err
}

// table prints rows of columns, under a line of their names if they have any.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(columns) > 0 {
		t.row(columns...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// flush prints; until then nothing is.
func (t *table) flush() { _ = t.w.Flush() }

// word is the last part of an enumeration's name in lower case, as people see
// it: PHASE_SERVING is serving.
func word(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// staleNote says how old an answer may be.
func staleNote(w io.Writer, f *controlpb.Freshness) {
	switch {
	case !f.GetStale():
	case f.AgeNs < 0:
		fmt.Fprintf(w, "\nstale: this controller has not heard of a leader since it started\n")
	default:
		fmt.Fprintf(w, "\nstale: this controller last heard of a leader %v ago\n", max(time.Duration(f.AgeNs), time.Millisecond).Round(time.Millisecond))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// short is a duration in few digits; empty for 0.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
