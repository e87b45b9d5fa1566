package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// newSpace makes a network namespace that lives as long as the file is open, or
// a process is in it. It is born with a process that only waits; doing it on a
// thread of this program would end the thread, and with it the processes that
// were started there and are to die with their starter.
func newSpace() (*os.File, error) {
	c := exec.Command("cat")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	wait, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("%w: make a network namespace: %w", ErrUnavailable, err)
	}
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
	return space, errors.Join(err, wait.Close(), c.Wait())
}

// path is where other processes find the namespace.
func (p place) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.space.Fd())
}

// wrap are the words before a command that is to run in this place.
func (p place) wrap() []string {
	if p.space == nil {
		return nil
	}
	return []string{"nsenter", "--net=" + p.path(), "--"}
}

// link is the place's own device.
func (p place) link() string {
	if p.space == nil {
		return hubLink
	}
	return hostLink
}

// port is the host's end on the bridge.
func (p place) port() string { return "v-" + p.name }

// mac follows from the address, so that nobody has to ask for it.
func (p place) mac() string {
	a := p.address.As4()
	return fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// vacant fails when there is a network already.
func vacant() error {
	if _, err := net.InterfaceByName(hubLink); err == nil {
		return fmt.Errorf("this program has a network already (device %s); close that one first", hubLink)
	}
	return nil
}

// build makes the devices. The first place is the hub.
//
// Everybody knows everybody's hardware address for good: a host that vanishes
// is not noticed by an unanswered question for it. And each place asks its table
// of local addresses only after the rules that make it deaf.
func build(all []place) error {
	hub := []string{"link add " + hubLink + " type bridge", "link set " + hubLink + " address " + all[0].mac()}
	for _, p := range all[1:] {
		hub = append(hub,
			fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", p.port(), hostLink, p.mac(), p.path()),
			"link set "+p.port()+" master "+hubLink+" up")
	}
	if err := all[0].ip(hub...); err != nil {
		return err
	}
	for _, p := range all {
		lines := []string{
			"link set lo up", "link set " + p.link() + " up",
			fmt.Sprintf("addr add %s/24 dev %s", p.address, p.link()),
			"rule add pref 100 lookup local", "rule del pref 0",
		}
		for _, other := range all {
			if other.name != p.name {
				lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", other.address, other.mac(), p.link()))
			}
		}
		if err := p.ip(lines...); err != nil {
			return err
		}
	}
	return nil
}

// unbuild removes what the hub sees; the devices of hosts go with their ports.
func unbuild() error {
	hub := place{}
	listed, err := hub.command("ip", "-o", "link", "show", "master", hubLink).Output()
	if err != nil {
		return nil // it was not built
	}
	lines := []string{"rule add pref 0 lookup local", "rule del pref 100"}
	for line := range strings.Lines(string(listed)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			port, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
			lines = append(lines, "link del "+port)
		}
	}
	return hub.ip(append(lines, "link del "+hubLink)...)
}

// forward has the bridge pass on what comes from and goes to this host, or drop
// it. The host's device keeps its carrier.
func (p place) forward(on bool) error {
	const disabled, forwarding = "0", "3"
	state := disabled
	if on {
		state = forwarding
	}
	return run(exec.Command("bridge", "link", "set", "dev", p.port(), "state", state))
}

// listen has this place take what comes from another, or drop it.
func (p place) listen(from place, on bool) error {
	verb := "add"
	if on {
		verb = "del"
	}
	return p.ip(fmt.Sprintf("rule %s pref 1 from %s iif %s blackhole", verb, from.address, p.link()))
}

// ip runs lines of the command ip in this place.
func (p place) ip(lines ...string) error {
	c := p.command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	return run(c)
}

func (p place) command(name string, arguments ...string) *exec.Cmd {
	words := append(append(p.wrap(), name), arguments...)
	return exec.Command(words[0], words[1:]...)
}

func run(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
