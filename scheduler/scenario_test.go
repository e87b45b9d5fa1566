package scheduler

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the decisions into testdata/*.txt")

// Each file of testdata is a story: "instant event arguments" lines, and what
// was decided indented below them. Lines of one instant are one step. The
// policy is also stepped whenever it asked to be woken. It is edf until "policy"
// names another one; "options" says how far ahead devices are given work and how
// long the way to them is. Lines in brackets are the reasons that it gives.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playScenario(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("run with -update and review if this is intended (-want +got):\n%s", diff)
			}
		})
	}
}

type scenario struct {
	t      *testing.T
	policy *core
	text   strings.Builder
	now    Instant
	wake   Instant
	events []Event
	held   string // lines of the step that is being gathered
	// reasons are those that the policy gives for what it does in the step.
	reasons []string
}

func playScenario(t *testing.T, text string) string {
	s := &scenario{t: t}
	s.policy = newEDF(Options{Explain: func(why string) { s.reasons = append(s.reasons, why) }})
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "):
			// A decision of an earlier run.
		case line == "" || strings.HasPrefix(line, "#"):
			s.flush()
			s.text.WriteString(line + "\n")
		default:
			s.line(line)
		}
	}
	s.flush()
	return s.text.String()
}

func (s *scenario) line(line string) {
	clock, rest, _ := strings.Cut(line, " ")
	at := Instant(s.duration(clock))
	if at != s.now {
		s.flush()
	}
	if at < s.now {
		s.t.Fatalf("%q goes back in time", line)
	}
	for s.wake != 0 && s.wake < at {
		s.now = s.wake
		s.step(fmt.Sprintf("  %v, woken:\n", time.Duration(s.now)))
	}
	s.now = at
	if e := s.event(strings.Fields(rest)); e != nil {
		s.events = append(s.events, e)
	}
	s.held += line + "\n"
}

func (s *scenario) flush() {
	if s.held == "" {
		return
	}
	s.text.WriteString(s.held)
	s.held = ""
	s.step("")
}

func (s *scenario) step(title string) {
	var out Decisions
	s.policy.Step(s.now, s.events, &out)
	s.events = nil
	s.wake = out.Wake
	if len(out.Actions)+len(out.Completions)+len(out.Repairs)+len(out.Abandoned)+len(out.Blamed) > 0 {
		s.text.WriteString(title)
	}
	for _, why := range s.reasons {
		fmt.Fprintf(&s.text, "  (%s)\n", why)
	}
	s.reasons = nil
	for _, c := range out.Completions {
		fmt.Fprintf(&s.text, "  request %d: %v", c.Request, c.Reason)
		if c.Action != 0 {
			fmt.Fprintf(&s.text, " by #%d", c.Action)
		}
		if c.Possible != 0 {
			fmt.Fprintf(&s.text, ", possible at %v", time.Duration(c.Possible))
		}
		if c.RetryAfter != 0 {
			fmt.Fprintf(&s.text, ", retry after %v", c.RetryAfter)
		}
		if c.Started && c.Reason != Done {
			s.text.WriteString(", may have run")
		}
		s.text.WriteByte('\n')
	}
	for _, r := range out.Repairs {
		fmt.Fprintf(&s.text, "  repair %s/%d model %d: present %v\n", r.Worker, r.Device, r.Model, r.Present)
	}
	for _, id := range out.Abandoned {
		fmt.Fprintf(&s.text, "  #%d is abandoned\n", id)
	}
	for _, b := range out.Blamed {
		fmt.Fprintf(&s.text, "  model %d is blamed for %s\n", b.Model, strings.Join(b.Workers, ", "))
	}
	for _, a := range out.Actions {
		fmt.Fprintf(&s.text, "  #%d %v %s/%d model %d", a.ID, a.Kind, a.Worker, a.Device, a.Model)
		if a.Kind == Infer {
			fmt.Fprintf(&s.text, " requests %v", a.Requests)
		}
		if a.Expected != 0 {
			fmt.Fprintf(&s.text, " takes %v", a.Expected)
		}
		if a.Latest != 0 {
			fmt.Fprintf(&s.text, ", starts by %v", time.Duration(a.Latest))
		}
		s.text.WriteByte('\n')
	}
}

func (s *scenario) event(words []string) Event {
	s.t.Helper()
	verb, words := words[0], words[1:]
	var plain []string
	named := make(map[string]string)
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			named[k] = v
		} else {
			plain = append(plain, w)
		}
	}
	number := func(i int) uint64 { return s.number(plain[i]) }
	switch verb {
	case "tick":
		return nil
	case "options": // before the first worker
		s.policy.options.ScheduleAhead = s.duration(named["ahead"])
		s.policy.options.NetworkLag = s.duration(named["lag"])
		return nil
	case "policy":
		return PolicyChanged{plain[0]}
	case "model":
		m := &Model{ID: ModelID(number(0)), MaxRows: int(s.number(named["rows"])),
			Batched: named["batched"] != "no", WeightsBytes: int64(s.number(named["pages"])) << 20}
		if n := named["pinned"]; n != "" {
			m.Pinned = int(s.number(n))
		}
		return ModelAdded{m}
	case "profile":
		f := &Profile{Model: ModelID(number(0)), DeviceKind: plain[1], WeightsLoad: s.duration(named["load"])}
		for _, w := range strings.Split(named["takes"], ",") {
			rows, d, _ := strings.Cut(w, ":")
			f.Execution = append(f.Execution, RowsTime{int(s.number(rows)), s.duration(d)})
		}
		return ProfileChanged{f}
	case "up":
		return WorkerUp{s.worker(plain, named)}
	case "down":
		return WorkerDown{Name: plain[0]}
	case "died":
		return WorkerDown{Name: plain[0], Died: true}
	case "reports":
		return Reported{&Worker{Name: plain[0], Devices: []Device{{Resident: s.resident(named)}}}}
	case "holds":
		return Held{plain[0], s.models(plain[1:])}
	case "submit":
		r := &Request{ID: RequestID(number(0)), Model: ModelID(s.number(named["model"])), Rows: 1,
			Class: named["class"], Arrived: s.now}
		if by := named["by"]; by != "" {
			r.Deadline = Instant(s.duration(by))
		}
		if priority := named["priority"]; priority != "" {
			r.Priority = s.number(priority)
		}
		r.Tenant = named["tenant"]
		if rows := named["rows"]; rows != "" {
			r.Rows = int(s.number(rows))
		}
		return Submit{r}
	case "cancel":
		return Cancel{RequestID(number(0))}
	case "ok", "refused", "failed", "skipped":
		r := &Result{Action: ActionID(number(0)), Engine: s.duration(named["took"]), Absent: named["absent"] != "",
			Outcome: map[string]Outcome{"ok": OK, "refused": Refused, "failed": Failed, "skipped": Skipped}[verb]}
		if id := named["rejected"]; id != "" {
			r.Rejected = []RequestID{RequestID(s.number(id))}
		}
		return Finished{r}
	case "remove":
		return ModelRemoved{ModelID(number(0))}
	case "replace":
		return ModelReplaced{ModelID(number(0)), ModelID(number(1))}
	case "prefetch":
		return Prefetch{ModelID(number(0)), int(number(1))}
	case "lend":
		return Lend{Worker: plain[0], Pages: int(number(1))}
	case "blame", "pardon":
		return ModelBlamed{ModelID(number(0)), verb == "blame"}
	}
	s.t.Fatalf("unknown event %q", verb)
	return nil
}

func (s *scenario) worker(plain []string, named map[string]string) *Worker {
	d := Device{Kind: plain[1], Pages: int(s.number(named["pages"])), PageBytes: 1 << 20, Resident: s.resident(named)}
	return &Worker{Name: plain[0], Devices: []Device{d}, Holds: s.models(strings.FieldsFunc(named["holds"], isComma))}
}

func (s *scenario) resident(named map[string]string) (all []Resident) {
	for _, w := range strings.FieldsFunc(named["resident"], isComma) {
		id, pages, _ := strings.Cut(w, ":")
		all = append(all, Resident{ModelID(s.number(id)), int(s.number(pages))})
	}
	return all
}

func isComma(r rune) bool { return r == ',' }

func (s *scenario) models(words []string) (ids []ModelID) {
	for _, w := range words {
		ids = append(ids, ModelID(s.number(w)))
	}
	return ids
}

func (s *scenario) number(word string) uint64 {
	s.t.Helper()
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		s.t.Fatalf("%q is not a number", word)
	}
	return n
}

func (s *scenario) duration(word string) time.Duration {
	s.t.Helper()
	if word == "" {
		return 0
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		s.t.Fatalf("%q is not a duration", word)
	}
	return d
}
