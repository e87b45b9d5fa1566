package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/proto/inferencepb"
)

func (a *app) inferCommand() *cobra.Command {
	var image, labels, version string
	var priority uint64
	c := &cobra.Command{
		Use:     "infer MODEL --image FILE",
		Short:   "Have a model classify a picture",
		Long:    fmt.Sprintf("Sends a grey PNG of %d×%d pixels to a model and prints the class with the best score.", models.Side, models.Side),
		Example: "  orrery infer fashion-mlp --image models/images/0251-sneaker.png --labels models/labels.txt",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	f := c.Flags()
	f.StringVar(&image, "image", "", "the picture; required")
	f.StringVar(&labels, "labels", "", "file with the name of a class on each line")
	f.StringVar(&version, "model-version", "", "version (default the newest)")
	f.Uint64Var(&priority, "priority", 0, "1 is the highest, 7 the lowest; 0 counts as 4")
	return a.infers(c, 10*time.Second, func(ctx context.Context, q *query, args []string) error {
		if image == "" {
			return usageError{errors.New("--image is missing: give a PNG"), c.CommandPath()}
		}
		names, err := readLabels(labels)
		if err != nil {
			return err
		}
		pixels, err := models.LoadImage(image)
		if err != nil {
			return err
		}
		result, err := classify(ctx, q.Client, args[0], version, priority, pixels)
		if err != nil {
			return err
		}
		if result.Class < len(names) {
			result.Label = names[result.Class]
		}
		return q.showClass(result)
	})
}

// classification is what `orrery infer` prints.
type classification struct {
	Model     string    `json:"model"`
	Version   string    `json:"version"`
	Class     int       `json:"class"`
	Label     string    `json:"label,omitempty"`
	Scores    []float32 `json:"scores"`
	Worker    string    `json:"worker"`
	Emulated  bool      `json:"emulated"`
	LatencyNS int64     `json:"latency_ns"`
}

func classify(ctx context.Context, cl *client.Client, model, version string, priority uint64, pixels []float32) (*classification, error) {
	metadata, err := cl.ModelMetadata(ctx, model, version)
	if err != nil {
		return nil, err
	}
	if len(metadata.Inputs) != 1 {
		return nil, fmt.Errorf("model %s has %s: only models with one can be given a picture", model, plural(len(metadata.Inputs), "input"))
	}
	request, err := imageRequest(model, version, metadata.Inputs[0], pixels)
	if err != nil {
		return nil, err
	}
	if priority > 0 {
		request.Parameters = map[string]*inferencepb.InferParameter{
			"priority": {ParameterChoice: &inferencepb.InferParameter_Uint64Param{Uint64Param: priority}}}
	}
	since := time.Now()
	response, answer, err := cl.Infer(ctx, request)
	if err != nil {
		return nil, err
	}
	latency := time.Since(since)
	values, err := scores(response)
	if err != nil {
		return nil, err
	}
	return &classification{
		Model: response.ModelName, Version: response.ModelVersion, Class: best(values), Scores: values,
		Worker: answer.GetWorker(), Emulated: answer.GetEmulated(), LatencyNS: int64(latency),
	}, nil
}

func (q *query) showClass(c *classification) error {
	if q.output == "json" {
		text, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(q.out, "%s\n", text)
		return err
	}
	note := ""
	if c.Emulated {
		note = "; emulated, so the answer means nothing"
	}
	fmt.Fprintf(q.out, "%s (class %d, score %.2f; %s by %s on %s%s)\n",
		cmp.Or(c.Label, fmt.Sprintf("class %d", c.Class)), c.Class, c.Scores[c.Class],
		short(time.Duration(c.LatencyNS)), c.Model, cmp.Or(c.Worker, "an unnamed worker"), note)
	return nil
}

// readLabels reads a name a line; no path is no names.
func readLabels(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}
