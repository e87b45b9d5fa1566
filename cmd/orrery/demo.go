package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/orrery-project/orrery/client"
	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/models"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
)

const (
	demoLoadIdle = 2 * time.Second
	// demoStep bounds each wait for the cluster; none comes near it.
	demoStep = 30 * time.Second
	// leaderPoll is how often the survivors are asked who leads.
	leaderPoll = 10 * time.Millisecond
)

// demoOptions are the flags of `orrery demo`.
type demoOptions struct {
	models string
	rate   int
	// before and after are how long the load runs around the failover.
	before, after time.Duration
}

func (a *app) demoCommand() *cobra.Command {
	o := &demoOptions{}
	c := &cobra.Command{
		Use: "demo", Short: "Show a cluster serving, losing its leader, and serving on",
		Long: `Runs three controllers and two workers as processes of their own on loopback.
They load two image classifiers and classify test images. Then, under a steady
load, the leader is killed and brought back. The report at the end says what
that did to the requests.

Fails if any request failed, or any answer is not the one that the models gave
when they were trained. Takes less than a minute, and leaves nothing behind.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.rate < 1 || o.rate > 10_000 || o.before < time.Second || o.after < time.Second {
				return usageError{errors.New("--rate is from 1 to 10000, --before and --after at least 1s"), c.CommandPath()}
			}
			return a.demo(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.models, "models", "models", "folder of the models and the test images")
	f.IntVar(&o.rate, "rate", 150, "requests a second in all")
	f.DurationVar(&o.before, "before", 5*time.Second, "how long the load runs before the leader is killed")
	f.DurationVar(&o.after, "after", 5*time.Second, "and how long once there is a new one")
	return c
}

// demo is one run of the demonstration.
type demo struct {
	*app
	o        *demoOptions
	dir      string
	expected *models.Expected
	cluster  *devcluster.Cluster
	// members are the controllers, in the order of their names.
	members []*demoMember
	leader  *demoMember
	report  demoReport
}

// demoMember is a controller with a client that knows it alone.
type demoMember struct {
	*devcluster.Process
	*client.Client
}

// demoModels are what is loaded and asked.
func demoModels() []string { return []string{"fashion-mlp", "fashion-cnn"} }

func (a *app) demo(ctx context.Context, o *demoOptions) (err error) {
	d := &demo{app: a, o: o}
	if d.dir, err = modelDir(o.models); err != nil {
		return err
	}
	if d.expected, err = models.LoadExpected(d.dir); err != nil {
		return err
	}
	d.say("Starting three controllers and two workers on loopback …")
	d.cluster, err = startCluster(ctx, a, devcluster.Options{
		ModelDir: d.dir, ControllerKeys: map[string]string{"startup.load_idle": demoLoadIdle.String()},
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		err = errors.Join(interrupted(ctx, err), d.close())
	}()
	for _, step := range []func(context.Context) error{d.meet, d.load, d.classify, d.drill, d.rejoin} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.report.print(d.out)
	return d.report.verdict()
}

// interrupted replaces whatever failed because of a Ctrl-C.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted; the cluster is gone")
	}
	return err
}

func (d *demo) close() error {
	for _, m := range d.members {
		_ = m.Client.Close()
	}
	return d.cluster.Stop()
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// title begins a part of the output.
func (d *demo) title(text string) { d.say("\n%s\n%s", text, strings.Repeat("─", len([]rune(text)))) }

// meet connects to the controllers and finds out who leads.
func (d *demo) meet(ctx context.Context) error {
	for _, p := range d.cluster.Controllers {
		c, err := client.New(client.Options{
			Name: "demo", Inference: []string{p.Addresses["inference"]}, Control: []string{p.Addresses["control"]},
		})
		if err != nil {
			return err
		}
		d.members = append(d.members, &demoMember{p, c})
	}
	for _, p := range d.cluster.All() {
		d.say("  %-10s %s, process %d", p.Kind, p.Name, p.PID())
	}
	status, err := d.findLeader(ctx)
	if err != nil {
		return err
	}
	d.say("They agree that %s leads, in term %d.", d.leader.Name, status.Term)
	return nil
}

// findLeader asks who leads now.
func (d *demo) findLeader(ctx context.Context) (*controlpb.ClusterStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	status, err := d.members[0].ClusterStatus(ctx, &controlpb.ClusterStatusRequest{})
	if err != nil {
		return nil, err
	}
	if d.leader = d.member(status.Leader); d.leader == nil {
		return nil, fmt.Errorf("%s says that %q leads, who is no controller here", d.members[0].Name, status.Leader)
	}
	return status, nil
}

func (d *demo) member(name string) *demoMember {
	for _, m := range d.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// followers are the controllers that do not lead.
func (d *demo) followers() []*demoMember {
	return slices.DeleteFunc(slices.Clone(d.members), func(m *demoMember) bool { return m == d.leader })
}

// load loads the models through a follower and shows the startup's phases until
// the cluster serves.
func (d *demo) load(ctx context.Context) error {
	follower := d.followers()[0]
	d.title("Startup: loading and profiling two models")
	d.say("Asked of %s, a follower. A load within %v of the last one restarts the countdown (a real cluster waits 10s).", follower.Name, demoLoadIdle)
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	all, gctx := errgroup.WithContext(ctx)
	serving := errors.New("the cluster serves")
	shown := newProgress(d.out)
	all.Go(func() error {
		err := follower.WatchStartup(gctx, func(s *controlpb.StartupStatus) error {
			_ = shown.see(s)
			if s.Phase == logpb.Phase_PHASE_SERVING {
				return serving
			}
			return nil
		})
		if errors.Is(err, serving) {
			return nil
		}
		return err
	})
	for _, name := range demoModels() {
		all.Go(func() error {
			statuses, err := follower.LoadModel(gctx, &logpb.LoadModel{Name: name, Source: name + ".onnx"})
			return errors.Join(err, failures(statuses))
		})
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("load the models: %w", err)
	}
	answer, err := follower.ListModels(ctx, &controlpb.ListModelsRequest{})
	if err != nil {
		return err
	}
	d.say("")
	profilesTable(d.out, answer.Models)
	return nil
}

// question is a request of which the answer is known.
type question struct {
	request *inferencepb.ModelInferRequest
	image   models.Image
	// predicted is what the model said when it was trained.
	predicted int
}

// questions are those about all test images to one model.
func (d *demo) questions(ctx context.Context, model string) ([]question, error) {
	metadata, err := d.leader.ModelMetadata(ctx, model, "")
	if err != nil {
		return nil, err
	}
	if len(metadata.Inputs) != 1 {
		return nil, fmt.Errorf("model %s has %s instead of one", model, plural(len(metadata.Inputs), "input"))
	}
	var all []question
	for _, image := range d.expected.Images {
		pixels, err := models.LoadImage(filepath.Join(d.dir, "images", image.File))
		if err != nil {
			return nil, err
		}
		request, err := imageRequest(model, "", metadata.Inputs[0], pixels)
		if err != nil {
			return nil, err
		}
		predicted, ok := image.Predictions[model]
		if !ok {
			return nil, fmt.Errorf("expected.json has no prediction of %s for %s", model, image.File)
		}
		all = append(all, question{request, image, predicted})
	}
	return all, nil
}

// ask returns the class that the cluster answers.
func ask(ctx context.Context, c *client.Client, q question) (int, error) {
	response, _, err := c.Infer(ctx, q.request)
	if err != nil {
		return 0, err
	}
	values, err := scores(response)
	if err != nil {
		return 0, err
	}
	return best(values), nil
}
