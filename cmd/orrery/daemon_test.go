package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestCheckConfig(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("name: c1\ndata_dir: /d\ncluster: {controllers: ['127.0.0.1:8011']}\n")
	if o := execute(t, nil, nil, "controller", "--check-config", "--config", good); o.status != 0 || o.out != good+" is valid\n" {
		t.Errorf("%+v", o)
	}
	// A flag wins over the variable, and that over the file.
	o := execute(t, nil, []string{"ORRERY_NAME=c2"}, "controller", "--check-config", "--config", good, "--name", "C 3")
	if o.status != statusFailed || !strings.Contains(o.err, "C 3") {
		t.Errorf("a bad name by flag: %+v", o)
	}
	bad := write("name: c1\ndata_dir: /d\ncluster: {controllers: ['127.0.0.1:8011']}\nraft: {leader_lease: 5}\nspeed: 9\n")
	o = execute(t, nil, nil, "controller", "--check-config", "--config", bad)
	lines := strings.Split(strings.TrimSpace(o.err), "\n")
	if o.status != statusFailed || len(lines) != 2 || !strings.HasPrefix(lines[0], "orrery: "+bad+":4:") || !strings.HasPrefix(lines[1], "orrery: "+bad+":5:") {
		t.Errorf("%+v; want both problems with their places", o)
	}
	if o := execute(t, nil, nil, "workerd", "--config", "nothing.yaml"); o.status != statusFailed || !strings.Contains(o.err, "nothing.yaml") {
		t.Errorf("%+v", o)
	}
}

func TestServe(t *testing.T) {
	failure := errors.New("disk full")
	for name, test := range map[string]struct {
		run   func(context.Context) error
		want  string
		after time.Duration
	}{
		"ends in order":   {func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); return nil }, "", 4 * time.Second},
		"fails by itself": {func(context.Context) error { time.Sleep(time.Second); return failure }, "disk full", time.Second},
		"does not end":    {func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Minute); return nil }, "cut off", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				d := &daemon{run: test.run, patience: 2 * time.Second, log: hclog.NewNullLogger()}
				since := time.Now()
				err := d.serve(ctx, nil)
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
				if took := time.Since(since); took != test.after {
					t.Errorf("ended after %v, want %v", took, test.after)
				}
				time.Sleep(2 * time.Minute) // for what was cut off
			})
		})
	}
}

func TestHangupReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		reloads := []func() ([]string, error){
			func() ([]string, error) { return []string{"log.level"}, nil },
			func() ([]string, error) { return []string{"log.level"}, errors.New("not applied: listen.http") },
			func() ([]string, error) { return nil, nil },
		}
		d := &daemon{
			run: func(ctx context.Context) error { <-ctx.Done(); return nil }, patience: time.Second,
			log: hclog.New(&hclog.LoggerOptions{Output: &log}),
			reload: func() ([]string, error) {
				next := reloads[0]
				reloads = reloads[1:]
				return next()
			},
		}
		hangups := make(chan os.Signal)
		done := make(chan error)
		go func() { done <- d.serve(ctx, hangups) }()
		for range 3 {
			hangups <- syscall.SIGHUP
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := log.String(); strings.Count(got, "configuration applied: keys=") != 2 ||
			!strings.Contains(got, "not applied: listen.http") || !strings.Contains(got, "configuration unchanged") {
			t.Errorf("log:\n%s", got)
		}
	})
}
