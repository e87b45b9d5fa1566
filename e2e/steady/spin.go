//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/orrery-project/orrery/e2e/bench"
)

const (
	// spinCommand makes this program one that keeps a processor busy.
	spinCommand = "spin"
	// spinSlice is how many rounds pass between two looks at the clock: some ten
	// milliseconds.
	spinSlice = 1 << 24
)

// spinMain keeps one processor busy, at ordinary priority, until its time is
// over or its parent is gone. Its arguments are both.
func spinMain(arguments []string) int {
	if len(arguments) != 2 {
		fmt.Fprintln(os.Stderr, "steady: spin is for this program itself")
		return 2
	}
	parent, err := strconv.Atoi(arguments[0])
	life, err2 := time.ParseDuration(arguments[1])
	if err := errors.Join(err, err2); err != nil {
		fmt.Fprintln(os.Stderr, "steady: spin:", err)
		return 2
	}
	runtime.GOMAXPROCS(1)
	x := uint64(os.Getpid())
	for end := time.Now().Add(life); os.Getppid() == parent && time.Now().Before(end); {
		for range spinSlice {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
	runtime.KeepAlive(x)
	return 0
}

// errDone is a busy process that was ready before it was ended.
var errDone = errors.New("its time was over")

// spinners are busy processes.
type spinners []*exec.Cmd

// startSpinners starts some that live no longer than life. end must be called.
func startSpinners(n int, life time.Duration) (s spinners, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for range n {
		cmd := exec.Command(self, spinCommand, strconv.Itoa(os.Getpid()), life.String())
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(fmt.Errorf("start a busy process: %w", err), s.end())
		}
		s = append(s, cmd)
	}
	return s, nil
}

// end ends them all. It fails when one had ended before.
func (s spinners) end() error {
	var failed []error
	for _, cmd := range s {
		_ = cmd.Process.Kill() // what has ended can't be
	}
	for _, cmd := range s {
		err := cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			failed = append(failed, fmt.Errorf("a busy process ended by itself: %w", cmp.Or(err, errDone)))
		}
	}
	return errors.Join(failed...)
}

// busy keeps an ordinary load up while other processes want all processors.
func busy(ctx context.Context, o options, s *stage) (f figures, err error) {
	busy, err := startSpinners(o.spinners, o.busy+settle+time.Minute)
	if err != nil {
		return f, err
	}
	f, err = s.keepUp(ctx, phase{
		name: "busy", duration: o.busy, every: o.every, model: slowModel, rate: o.busyRate, deadline: o.deadline, controlWrites: true,
	})
	var used time.Duration
	for _, cmd := range busy {
		used += bench.ProcessTime(cmd.Process.Pid)
	}
	f.note = fmt.Sprintf("%d busy processes had %.2f of %d processors", o.spinners, used.Seconds()/(f.took+settle).Seconds(), runtime.NumCPU())
	return f, errors.Join(err, busy.end())
}
