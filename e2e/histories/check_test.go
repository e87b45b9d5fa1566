package histories

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"
)

// script makes a history of lines such as
//
//	1 4 load a slo=1 as r1 -> id=7 of r1
//
// which begin with the times of call and return.
func script(t *testing.T, text string) (ops []operation) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		asked, told, ok := strings.Cut(line, " -> ")
		words := strings.Fields(asked)
		if !ok || len(words) < 4 {
			t.Fatalf("not an operation: %q", line)
		}
		op := operation{Client: len(ops), Input: input{Kind: kind(words[2]), Key: words[3]}, Output: output{Status: done}}
		scan(t, words[0], "%d", &op.Call)
		scan(t, words[1], "%d", &op.Return)
		for i, word := range words[4:] {
			switch {
			case strings.HasPrefix(word, "slo="):
				scan(t, word, "slo=%d", &op.Input.SLO)
			case word == "as":
				op.Input.Request = words[4+i+1]
			case word == "to":
				op.Input.Value = words[4+i+1]
			}
		}
		op.Output.SLO = op.Input.SLO
		words = strings.Fields(told)
		for i, word := range words {
			switch {
			case strings.HasPrefix(word, "id="):
				scan(t, word, "id=%d", &op.Output.ID)
			case strings.HasPrefix(word, "slo="):
				scan(t, word, "slo=%d", &op.Output.SLO)
			case word == "of":
				op.Output.Creator = words[i+1]
			case i > 0 && words[i-1] == "of":
			case strings.HasPrefix(word, "v"):
				op.Output.Value = word
			default:
				op.Output.Status = status(word)
			}
		}
		ops = append(ops, op)
	}
	return ops
}

func scan(t *testing.T, text, format string, to any) {
	t.Helper()
	if _, err := fmt.Sscanf(text, format, to); err != nil {
		t.Fatalf("%q is not %q: %v", text, format, err)
	}
}

// TestVerdicts holds the model against histories that can be, and ones that
// can't.
func TestVerdicts(t *testing.T) {
	tests := []struct {
		name, history string
		want          bool
	}{
		{"one after the other", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 load a slo=1 as r2 -> id=1 of r1
			5 6 load a slo=2 as r3 -> refused
			7 8 list a slo=1 -> id=1 of r1
			9 10 unload a -> id=1
			11 12 list a -> refused
			13 14 unload a -> refused
			15 16 load a slo=2 as r4 -> id=9 of r4`, true},
		{"an acknowledged load is lost", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 list a -> refused`, false},
		{"an acknowledged unload is lost", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 unload a -> id=1
			5 6 list a slo=1 -> id=1 of r1`, false},
		{"a read sees what is under way", `
			1 9 load a slo=1 as r1 -> id=1 of r1
			2 3 list a slo=1 -> id=1 of r1
			4 5 list a slo=1 -> id=1 of r1`, true},
		{"a read sees less than an earlier one", `
			1 9 load a slo=1 as r1 -> id=1 of r1
			2 3 list a slo=1 -> id=1 of r1
			4 5 list a -> refused`, false},
		{"a retry is applied again", `
			1 9 load a slo=1 as r1 -> id=2 of r1
			2 3 list a slo=1 -> id=1 of r1
			4 5 unload a -> id=1
			6 7 list a slo=1 -> id=2 of r1`, false},
		{"an unload is applied again", `
			1 9 unload a -> id=1
			0 1 load a slo=1 as r1 -> id=1 of r1
			3 4 load a slo=1 as r2 -> id=2 of r2
			5 6 list a -> refused`, false},
		{"two wants of one name, and neither is a conflict", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 load a slo=2 as r2 -> id=2 of r2`, false},
		{"a conflict with nothing", `
			1 2 load a slo=1 as r1 -> refused`, false},
		{"an id is used twice", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 unload a -> id=1
			5 6 load a slo=1 as r2 -> id=1 of r2`, false},
		{"a model has two ids", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 list a slo=1 -> id=2 of r1`, false},
		{"an unknown load takes effect late", `
			1 2 load a slo=1 as r1 -> unknown
			3 4 list a -> refused
			5 6 list a slo=1 -> id=1 of r1
			7 8 unload a -> id=1
			9 10 list a -> refused`, true},
		{"an unknown load takes effect twice", `
			1 2 load a slo=1 as r1 -> unknown
			5 6 list a slo=1 -> id=1 of r1
			7 8 unload a -> id=1
			9 10 list a slo=1 -> id=2 of r1`, false},
		{"an unknown load never takes effect", `
			1 2 load a slo=1 as r1 -> unknown
			3 4 list a -> refused`, true},
		{"an unknown unload explains that a model is gone", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 unload a -> unknown
			5 6 list a slo=1 -> id=1 of r1
			7 8 list a -> refused`, true},
		{"what was said not to be executed was", `
			1 2 load a slo=1 as r1 -> nothing
			3 4 list a slo=1 -> id=1 of r1`, false},
		{"what was said to be executed was not", `
			1 2 load a slo=1 as r1 -> executed
			3 4 list a -> refused`, false},
		{"a load that was executed and whose model was unloaded", `
			1 6 load a slo=1 as r1 -> executed
			3 4 unload a -> id=4
			7 8 list a -> refused`, true},
		{"names have nothing to do with each other", `
			1 2 load a slo=1 as r1 -> id=1 of r1
			3 4 list b -> refused`, true},
		{"settings one after the other", `
			1 2 read settings -> v0
			3 4 set settings to v1 -> v1
			5 6 read settings -> v1`, true},
		{"an acknowledged setting is lost", `
			3 4 set settings to v1 -> v1
			5 6 read settings -> v0`, false},
		{"settings go back", `
			1 9 set settings to v1 -> v1
			2 3 read settings -> v1
			4 5 read settings -> v0`, false},
		{"a setting is applied again", `
			1 20 set settings to v1 -> v1
			2 3 read settings -> v1
			4 5 set settings to v2 -> v2
			6 7 read settings -> v2
			8 9 read settings -> v1`, false},
		{"an unknown setting takes effect late", `
			1 2 set settings to v1 -> unknown
			3 4 read settings -> v0
			5 6 set settings to v2 -> v2
			7 8 read settings -> v1`, true},
		{"what was not set is read", `
			1 2 read settings -> v7`, false},
	}
	for _, test := range tests {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			v := check("v0", script(t, test.history))
			if v.linearizable() != test.want {
				t.Errorf("unexplained %v, undecided %v; linearizable should be %v", v.unexplained, v.undecided, test.want)
			}
		})
	}
}

// TestWhatIsLeftOutMakesNoDifference compares the verdict with that of a checker
// which is given all unknown outcomes as they are.
func TestWhatIsLeftOutMakesNoDifference(t *testing.T) {
	verdicts := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		var ops []operation
		var plain []porcupine.Operation
		for i := range rapid.IntRange(1, 9).Draw(t, "operations") {
			call := rapid.IntRange(0, 20).Draw(t, "call")
			op := operation{
				Client: i, Call: time.Duration(call), Return: time.Duration(call + rapid.IntRange(1, 8).Draw(t, "length")),
				Output: output{Status: done},
			}
			if rapid.Bool().Draw(t, "writes") {
				op.Input = input{Kind: set, Key: settingsKey, Value: fmt.Sprintf("v%d", i)}
				op.Output.Value = op.Input.Value
				if rapid.Bool().Draw(t, "unknown") {
					op.Output = output{Status: unknown}
				}
			} else {
				op.Input = input{Kind: read, Key: settingsKey}
				op.Output.Value = fmt.Sprintf("v%d", rapid.IntRange(0, 9).Draw(t, "value"))
			}
			end := int64(op.Return)
			if op.Output.Status == unknown {
				end = math.MaxInt64
			}
			ops = append(ops, op)
			plain = append(plain, porcupine.Operation{ClientId: i, Input: op.Input, Output: op.Output, Call: int64(op.Call), Return: end})
		}
		want := porcupine.CheckOperations(model("v9"), plain)
		verdicts[want]++
		if v := check("v9", ops); v.linearizable() != want {
			t.Errorf("linearizable is %v, should be %v", v.linearizable(), want)
		}
	})
	if verdicts[true] == 0 || verdicts[false] == 0 {
		t.Errorf("the verdicts were %v: some histories should be linearizable, and some not", verdicts)
	}
}

// TestReusedIDs finds what no look at one name alone can.
func TestReusedIDs(t *testing.T) {
	ops := script(t, `
		1 2 load a slo=1 as r1 -> id=1 of r1
		3 4 load b slo=1 as r2 -> id=2 of r2
		5 6 list a slo=1 -> id=1 of r1`)
	if problems := reusedIDs(ops); len(problems) > 0 {
		t.Error(problems)
	}
	ops = append(ops, script(t, `7 8 load c slo=1 as r3 -> id=1 of r3`)...)
	if problems := reusedIDs(ops); len(problems) == 0 {
		t.Error("id 1 is that of two models, and nobody notices")
	}
}

// TestUnexplainedHistoriesAreKept looks for the files.
func TestUnexplainedHistoriesAreKept(t *testing.T) {
	ops := script(t, `
		1 2 load a slo=1 as r1 -> id=1 of r1
		3 4 list a -> refused`)
	keep(t, "", ops, check("", ops))
	for _, name := range []string{"history.jsonl", "a.html"} {
		if info, err := os.Stat(filepath.Join(t.ArtifactDir(), name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
