package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp shows all help there is, as users see it.
func TestHelp(t *testing.T) {
	var all strings.Builder
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		o := execute(t, nil, nil, args...)
		if o.status != 0 || o.err != "" {
			t.Errorf("%v: status %d, %s", args, o.status, o.err)
		}
		fmt.Fprintf(&all, "$ %s --help\n%s\n", c.CommandPath(), o.out)
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(newRoot(&app{}))
	golden(t, "help.txt", all.String())
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"nonsense", `orrery: unknown command "nonsense" for "orrery"; see ` + "`orrery --help`\n"},
		{"model nonsense", `orrery: unknown command "nonsense" for "orrery model"; see ` + "`orrery model --help`\n"},
		{"model load", "orrery: accepts 1 arg(s), received 0; see `orrery model load --help`\n"},
		{"model load m", "orrery: --source is missing: give the path of the model below the workers' model directory; see `orrery model load --help`\n"},
		{"model load m --source x --largest tokens=512,0", `orrery: --largest is "tokens=512,0": "0" is no number from 1 up; write NAME=N,N with the most of each ` +
			"dimension but the batch, as in --largest tokens=512; see `orrery model load --help`\n"},
		{"model replace m", "orrery: --source is missing: give the path of the model below the workers' model directory; see `orrery model replace --help`\n"},
		{"startup status --models -1", "orrery: --models is -1: it can't be negative; see `orrery startup status --help`\n"},
		{"model list --nonsense", "orrery: unknown flag: --nonsense; see `orrery model list --help`\n"},
		{"model list -o yaml", `orrery: --output is "yaml": it must be table or json; see ` + "`orrery model list --help`\n"},
		{"worker list --timeout 0s", "orrery: --timeout is 0s: it must be above 0; see `orrery worker list --help`\n"},
		{"infer m", "orrery: --image is missing: give a PNG; see `orrery infer --help`\n"},
		{"controller", "orrery: --config is missing: give the path of the configuration; see `orrery controller --help`\n"},
		{"demo --rate 0", "orrery: --rate is from 1 to 10000, --before and --after at least 1s; see `orrery demo --help`\n"},
		{"dev --workers 0", "orrery: a cluster has at least one controller and one worker; see `orrery dev --help`\n"},
	} {
		o := execute(t, nil, nil, strings.Fields(test.line)...)
		if o.status != statusUsage || o.err != test.want || o.out != "" {
			t.Errorf("%s: %+v\nwant status 2 and %s", test.line, o, test.want)
		}
	}
}

func TestVersion(t *testing.T) {
	if o := execute(t, nil, nil, "version"); o.status != 0 || !strings.HasPrefix(o.out, "orrery ") {
		t.Errorf("%+v", o)
	}
}

func TestCompletion(t *testing.T) {
	if o := execute(t, nil, nil, "completion", "bash"); o.status != 0 || !strings.Contains(o.out, "__start_orrery") {
		t.Errorf("status %d, %s", o.status, o.err)
	}
}
