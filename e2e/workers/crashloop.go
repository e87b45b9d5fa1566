//go:build linux

package main

import (
	"context"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

// crashLoop kills a worker whenever it has been registered and starts it again,
// for a span, after a span without that to compare with.
func crashLoop(ctx context.Context, t *trial) error {
	span := t.options.span
	start, err := t.progress(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := bench.Pause(ctx, span); err != nil {
		return err
	}
	middle, err := t.progress(ctx)
	if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	lives, err := t.loop(ctx, span)
	if err != nil {
		return err
	}
	end, err := t.progress(ctx)
	if err != nil {
		return err
	}
	ended := time.Now()
	outcomes := t.load.Outcomes()
	before, during := bench.MedianTook(outcomes, began, t.fault), bench.MedianTook(outcomes, t.fault, ended)
	perSecond := func(entries float64, d time.Duration) float64 { return entries / d.Seconds() }
	base := perSecond(middle-start, t.fault.Sub(began))
	t.result.Figures = map[string]float64{
		"entries_before": base, "entries": perSecond(end-middle, ended.Sub(t.fault)) - base, "lives": float64(lives),
		"latency_before_ms": bench.MS(before), "latency_ratio": float64(during) / float64(max(before, 1)),
	}
	t.measured = true
	return nil
}

// loop returns how often it has killed a worker.
func (t *trial) loop(ctx context.Context, span time.Duration) (lives int, err error) {
	w := t.anyWorker()
	for time.Since(t.fault) < span {
		if err := w.Kill(); err != nil {
			return lives, err
		}
		lives++
		if err := w.Start(); err != nil {
			return lives, err
		}
		for time.Since(t.fault) < span {
			if m, err := bench.Metrics(ctx, w); err == nil && m["orrery_worker_registered"] == 1 {
				break
			}
			if err := bench.Pause(ctx, sendPoll); err != nil {
				return lives, err
			}
		}
	}
	return lives, nil
}
