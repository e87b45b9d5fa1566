package devcluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one controller or worker: a life after the other of a process,
// with one configuration. Its methods may be called from any goroutine, but
// those that start and end it one at a time.
type Process struct {
	Name string
	Kind Kind
	// Addresses by listener, as in the configuration.
	Addresses map[string]string
	// Members are the names by which the cluster knows it: its own, or those of
	// the workers that it runs.
	Members []string
	// Config and Log are the paths of its configuration and of its log, to
	// which all lives append.
	Config, Log string
	// command starts it.
	command []string

	mu   sync.Mutex
	life *life
}

// life is one run of a process.
type life struct {
	cmd *exec.Cmd
	// exited is closed when it has ended; err is set before.
	exited chan struct{}
	err    error
}

func newProcess(o Options, m member) *Process {
	dir := filepath.Join(o.Dir, m.name)
	p := &Process{
		Name: m.name, Kind: m.kind, Addresses: m.addresses,
		Config: filepath.Join(dir, string(m.kind)+".yaml"),
		Log:    filepath.Join(dir, "log"),
	}
	p.command = append(slices.Clone(m.wrap), o.Binary, string(m.kind), "--config", p.Config)
	if m.kind == Controller || o.PerProcess <= 1 {
		p.Members = []string{m.name}
		return p
	}
	p.command = append(p.command, "--count", strconv.Itoa(o.PerProcess))
	for i := range o.PerProcess {
		p.Members = append(p.Members, fmt.Sprintf("%s-%d", m.name, i+1))
	}
	return p
}

// Start starts the process. It does not wait until the process is ready.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil && !p.life.over() {
		return fmt.Errorf("start %s: it runs already", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = withoutOwn(os.Environ())
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	l := &life{cmd: cmd, exited: make(chan struct{})}
	p.life = l
	// Ends with the process, for which whoever ends it waits.
	go func() {
		l.err = cmd.Wait()
		close(l.exited)
	}()
	return nil
}

// withoutOwn leaves out what would change a configuration.
func withoutOwn(env []string) []string {
	var rest []string
	for _, variable := range env {
		if !strings.HasPrefix(variable, "ORRERY_") {
			rest = append(rest, variable)
		}
	}
	return rest
}

func (l *life) over() bool {
	select {
	case <-l.exited:
		return true
	default:
		return false
	}
}

func (p *Process) now() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

func (p *Process) hasExited() bool {
	l := p.now()
	return l != nil && l.over()
}

// Exited is closed when the present life ends. It is nil, and so never ready,
// before the first.
func (p *Process) Exited() <-chan struct{} {
	if l := p.now(); l != nil {
		return l.exited
	}
	return nil
}

// Wait waits for the end of the present life, and returns how it ended: nil, or
// an *exec.ExitError.
func (p *Process) Wait() error {
	l := p.now()
	if l == nil {
		return nil
	}
	<-l.exited
	return l.err
}

// PID is the process id of the present or last life, 0 before the first.
func (p *Process) PID() int {
	if l := p.now(); l != nil {
		return l.cmd.Process.Pid
	}
	return 0
}

// Stop asks the process to end and waits until it has. One that takes longer
// than 5 s is killed, and that is an error.
func (p *Process) Stop() error {
	l := p.now()
	if l == nil || l.over() {
		return nil
	}
	if err := errors.Join(l.signal(syscall.SIGTERM), l.signal(syscall.SIGCONT)); err != nil {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-l.exited:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM and was killed; the end of its log:\n%s",
			p.Name, stopPatience, p.LogTail(10)), p.Kill())
	}
}

// Kill ends the process by SIGKILL and waits until it has.
func (p *Process) Kill() error {
	l := p.now()
	if l == nil || l.over() {
		return nil
	}
	if err := l.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-l.exited
	return nil
}

// Pause stops the process in its tracks, as a long pause of its machine would.
func (p *Process) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Restart stops the process, if it runs, and starts it again.
func (p *Process) Restart() error {
	if err := p.Stop(); err != nil {
		return err
	}
	return p.Start()
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	l := p.now()
	if l == nil {
		return fmt.Errorf("signal %s: it was never started", p.Name)
	}
	if err := l.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// signal sends a signal; that it comes too late is no error.
func (l *life) signal(s syscall.Signal) error {
	if err := l.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// LogTail is the last lines of the log.
func (p *Process) LogTail(lines int) string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
