package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
)

// twice is a model directory with a model and, as again.onnx, the same with another
// digest: the name of its producer, which says nothing, is another.
func twice(t *testing.T, name string) (dir string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(modelDir, name+".onnx"))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	// The last value of a field is the one that counts: field 2 of a ModelProto.
	again := append(append([]byte{}, content...), 2<<3|2, 1, 'x')
	for file, bytes := range map[string][]byte{name + ".onnx": content, "again.onnx": again} {
		if err := os.WriteFile(filepath.Join(dir, file), bytes, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestReplaceAndReopenUnderLoad has a version take the place of another, and loads a
// further model, while requests are answered: by an operator's commands.
func TestReplaceAndReopenUnderLoad(t *testing.T) {
	c := startCluster(t, devcluster.Options{ModelDir: twice(t, mlp)})
	c.serve(t, mlp)
	_, l := c.loadFollowers(t, 3*time.Second)
	control := "--control=" + c.Controllers[0].Addresses["control"]
	ask := func(args ...string) result { return orreryCommand(t, append(args, control)...) }
	began := time.Now()

	eventually(t, startTimeout, "a version of the cluster that knows replacements", func() error {
		r := ask("cluster", "status")
		_, after, _ := strings.Cut(r.stdout, "version ")
		version := 0
		if _, err := fmt.Sscanf(after, "%d", &version); err != nil || version < 4 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	ask("model", "replace", mlp, "--source=again.onnx").expect(t, 1, "late_loads=admit", "orrery startup reopen")
	ask("startup", "reopen").expect(t, 0, "serving goes on")
	ask("startup", "status").expect(t, 0, "[waiting]", "accepted")
	if r := ask("model", "replace", mlp, "--source=again.onnx", "--timeout=80s"); r.status != 0 ||
		!strings.Contains(r.stdout, "version 2 of "+mlp+" has taken the place of version 1") {
		t.Errorf("replace: %v", r)
	}
	eventually(t, recoverTimeout, "the version before is gone", func() error {
		answer, err := clientOf(t, c.Controllers...).ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{})
		if err == nil && (len(answer.Models) != 1 || answer.Models[0].Model.Version != "2") {
			err = fmt.Errorf("%v", answer.Models)
		}
		return err
	})
	ask("model", "profile", mlp).expect(t, 0, "version       2", "ROWS/S", "16")
	ask("model", "load", "late", "--source=again.onnx").expect(t, 1, "late_loads=admit")
	l.end(began, time.Now())
}
