package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// classify has both models recognise the test images through every controller.
// All must give the answers of the training run, right or wrong.
func (d *demo) classify(ctx context.Context) error {
	d.title(fmt.Sprintf("Inference: %d test images through each of the three controllers", len(d.expected.Images)))
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	names, err := readLabels(filepath.Join(d.dir, "labels.txt"))
	if err != nil {
		return err
	}
	var byModel [][]question
	for _, model := range demoModels() {
		questions, err := d.questions(ctx, model)
		if err != nil {
			return err
		}
		byModel = append(byModel, questions)
	}
	all, gctx := errgroup.WithContext(ctx)
	for _, m := range d.members {
		all.Go(func() error { return askAll(gctx, m, byModel) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	// What was answered equals the prediction, or askAll had failed.
	t := newTable(d.out, "IMAGE", "IS", "FASHION-MLP SAYS", "FASHION-CNN SAYS")
	right := make([]int, len(byModel))
	for i, image := range d.expected.Images {
		row := []string{image.File, image.Name}
		for j, questions := range byModel {
			said, mark := names[questions[i].predicted], "  ✗"
			if questions[i].predicted == image.Label {
				mark = ""
				right[j]++
			}
			row = append(row, said+mark)
		}
		t.row(row...)
	}
	t.flush()
	for j, model := range demoModels() {
		d.say("%s is right about %d of %d.", model, right[j], len(d.expected.Images))
	}
	d.say("Each answer, right or wrong (✗), is that of the training run, and the same from all three controllers.")
	return nil
}

// askAll asks one controller all questions, and fails at an answer that differs
// from the prediction.
func askAll(ctx context.Context, m *demoMember, byModel [][]question) error {
	for _, questions := range byModel {
		for _, q := range questions {
			class, err := ask(ctx, m.Client, q)
			if err != nil {
				return fmt.Errorf("%s, asked through %s about %s: %w", q.request.ModelName, m.Name, q.image.File, err)
			}
			if class != q.predicted {
				return fmt.Errorf("%s, asked through %s about %s, says class %d and said %d when it was trained",
					q.request.ModelName, m.Name, q.image.File, class, q.predicted)
			}
		}
	}
	return nil
}
