package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// marker tells a program that it runs inside. Its value is the process id, so
// that programs which that one starts don't take themselves for it.
const marker = "ORRERY_NETLAB"

func inside() bool { return os.Getenv(marker) == fmt.Sprint(os.Getppid()) }

// Main calls main with network and mount namespaces of the program's own, and
// returns its status. For that it runs the program once more, with the same
// arguments, and passes signals on to it; the second time it only calls main.
// It is to be the first thing that a program does:
//
//	func TestMain(m *testing.M) {
//		status, err := netlab.Main(m.Run)
//		…
//		os.Exit(status)
//	}
//
// The error is ErrUnavailable if the system does not allow it; main was not
// called then.
func Main(main func() int) (status int, err error) {
	if inside() {
		return main(), nil
	}
	for _, tool := range []string{"ip", "bridge", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 1, fmt.Errorf("%w: %w; install iproute2 and util-linux", ErrUnavailable, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", marker, os.Getpid()))
	c.SysProcAttr = &syscall.SysProcAttr{
		// Unshared, not cloned: so Go also takes the mounts out of their peers'
		// sight.
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Setpgid:      true, // signals of the terminal come once, from here
		Pdeathsig:    syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return 1, fmt.Errorf("%w: making them is for root alone; run this as root: %w", ErrUnavailable, err)
		}
		return 1, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ended := make(chan error)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = c.Process.Signal(s)
		case err := <-ended:
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				if exit.Exited() {
					return exit.ExitCode(), nil
				}
				return 1, fmt.Errorf("the program in its own network: %w", err)
			}
			return 0, err
		}
	}
}
